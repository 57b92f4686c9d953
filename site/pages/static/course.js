// On every page: charts where there are some, and what was seen once stays readable without a network.
{
  const root = new URL("..", document.currentScript.src);
  if (document.querySelector("figure.chart")) import(new URL("_static/results.mjs", root).href);

  const keep = async () => {
    await navigator.serviceWorker.register(new URL("sw.js", root));
    const { active } = await navigator.serviceWorker.ready;
    const seen = performance.getEntriesByType("resource").map(({ name }) => name);
    active.postMessage([location.href.split("#")[0], ...seen.filter((name) => name.startsWith(root.href))]);
  };
  if ("serviceWorker" in navigator && isSecureContext) addEventListener("load", () => setTimeout(() => keep().catch(() => {}), 500));
}
