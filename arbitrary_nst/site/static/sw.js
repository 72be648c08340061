// Keeps the site for when there is no network, and gives it the headers without which a browser allows no threads.
//
// A file is kept under its path and its hash (FILES, which stands before this). A new version of the site downloads what
// has changed, and no more.

const CACHE = "arbitrary_nst site", LATER = /^(models|ort)\//;
const key = path => new URL(`${path}?${FILES[path]}`, registration.scope).href;

async function keep(path) {
  const cache = await caches.open(CACHE);
  if (await cache.match(key(path))) return;
  const response = await fetch(new URL(path, registration.scope), {cache: "no-cache"});
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  await cache.put(key(path), response);
}

async function forgetOthers() {
  const cache = await caches.open(CACHE), known = new Set(Object.keys(FILES).map(key));
  for (const request of await cache.keys()) if (!known.has(request.url)) await cache.delete(request);
}

// What the page needs to open is there at once; models and runtime when they are first used.
self.addEventListener("install", event => {
  self.skipWaiting();
  event.waitUntil(Promise.all(Object.keys(FILES).filter(path => !LATER.test(path)).map(keep)));
});
self.addEventListener("activate", event => event.waitUntil(Promise.all([forgetOthers(), self.clients.claim()])));

self.addEventListener("fetch", event => {
  const {url, method} = event.request;
  if (method !== "GET" || !url.startsWith(registration.scope)) return;
  const path = url.slice(registration.scope.length).replace(/[?#].*/, "") || "index.html";
  if (path in FILES) event.respondWith(answer(path, event));
});

async function answer(path, event) {
  const cache = await caches.open(CACHE);
  let response = await cache.match(key(path));
  if (!response) {
    response = await fetch(new URL(path, registration.scope), {cache: "no-cache"});
    if (!response.ok) return response;
    event.waitUntil(cache.put(key(path), response.clone()).catch(() => {})); // the disk is full: not kept
  }
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(response.body, {status: response.status, headers});
}
