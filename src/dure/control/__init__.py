"""The kit of every controller: cache, queue, loop, leader election."""
