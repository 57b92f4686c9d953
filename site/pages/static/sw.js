// What was loaded once is kept. The network comes first, so nothing old is shown where there is one.
const NAME = `course ${self.registration.scope}`;

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("message", ({ data }) => {
  caches.open(NAME).then(async (cache) => {
    for (const address of data) if (!(await cache.match(address))) await cache.add(address).catch(() => {});
  });
});

async function answer(request) {
  const cache = await caches.open(NAME);
  try {
    const found = await fetch(request);
    if (found.ok && found.status === 200) cache.put(request, found.clone());
    return found;
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(self.registration.scope)) event.respondWith(answer(event.request));
});
