"""What tests of several rooms share: the virtual-time loop, small working fakes."""
