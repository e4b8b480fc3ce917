// A service worker: stores the page for use without a network, and enables threads.
// It ignores files of the bundle, because the engine caches them by SHA-256.

const NAME = "edgetune-page";
const HEADERS = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };
const { pathname: SCOPE } = new URL("./", self.location.href);

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  const { origin, pathname } = new URL(url);
  const own = origin === self.location.origin && pathname.startsWith(SCOPE);
  if (method !== "GET" || !own || pathname.startsWith(`${SCOPE}bundle/`)) return;
  event.respondWith(answer(event.request));
});

// The newest available version. The browser revalidates its copy, and downloads it again only if it has changed.
async function answer(request) {
  const cache = await caches.open(NAME);
  let response;
  try {
    response = await fetch(request, { cache: "no-cache" });
  } catch (error) {
    const kept = await cache.match(request, { ignoreVary: true });
    if (kept) return kept;
    throw error;
  }
  if (!response.ok) return response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  const { status, statusText } = response;
  const isolated = new Response(response.body, { status, statusText, headers });
  await cache.put(request, isolated.clone()).catch(({ message }) => console.warn(`edgetune: not kept (${message})`));
  return isolated;
}
