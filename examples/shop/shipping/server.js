// Shipping quotes: what a parcel of some weight costs and how long it takes.
'use strict';

const http = require('http');

const PORT = Number(process.env.PORT || 8080);
const DRAIN_MILLISECONDS = Number(process.env.DRAIN_SECONDS || 2) * 1000;
const HEAVIEST = 30000;
// up to so many grams: won, days
const PARCELS = [
  [500, 3000, 2],
  [2000, 4000, 2],
  [5000, 5500, 3],
  [HEAVIEST, 9000, 4],
];

let leaving = false;

function answer(response, status, value) {
  const body = JSON.stringify(value) + '\n';
  response.writeHead(status, {
    'Content-Type': 'application/json; charset=utf-8',
    'Content-Length': Buffer.byteLength(body),
    ...(leaving ? { Connection: 'close' } : {}),
  });
  response.end(body);
}

function quote(grams) {
  const full = Math.floor(grams / HEAVIEST);
  const rest = grams % HEAVIEST;
  const last = PARCELS[PARCELS.length - 1];
  const [, won, days] = rest ? PARCELS.find(([limit]) => rest <= limit) : [0, 0, 0];
  return {
    grams,
    parcels: full + (rest ? 1 : 0),
    cost: full * last[1] + won,
    days: full ? last[2] : days,
    carrier: '두레택배',
  };
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://shipping');
  if (url.pathname === '/healthz') return answer(response, 200, { status: 'ok' });
  if (url.pathname === '/readyz') return answer(response, leaving ? 503 : 200, { ready: !leaving });
  if (url.pathname !== '/quote') return answer(response, 404, { error: 'no such page' });
  const grams = Number(url.searchParams.get('grams'));
  if (!Number.isInteger(grams) || grams < 1 || grams > 1e8) {
    return answer(response, 400, { error: 'grams is a whole number from 1' });
  }
  console.log(`${request.method} ${request.url} 200`);
  return answer(response, 200, quote(grams));
});

function leave() {
  if (leaving) return;
  leaving = true; // not ready any more: no new requests will be sent here soon
  setTimeout(() => {
    server.close(() => {
      console.log('shipping has ended');
      process.exit(0);
    });
    if (server.closeIdleConnections) server.closeIdleConnections();
  }, DRAIN_MILLISECONDS);
}

process.on('SIGTERM', leave);
process.on('SIGINT', leave);
server.listen(PORT, () => console.log(`shipping listens on ${PORT}`));
