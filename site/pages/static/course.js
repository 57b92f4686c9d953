// On every page: charts where there are some, and what was seen once stays readable without a network.
{
  const root = new URL("..", document.currentScript.src);
  if (document.querySelector("figure.chart")) import(new URL("_static/results.mjs", root).href);

  const keep = async () => {
    await navigator.serviceWorker.register(new URL("sw.js", root));
    const { active } = await navigator.serviceWorker.ready;
    active.postMessage([location.href.split("#")[0]]);
    const keepSeen = (list) => active.postMessage(list.getEntries().map(({ name }) => name).filter((name) => name.startsWith(root.href)));
    new PerformanceObserver(keepSeen).observe({ type: "resource", buffered: true }); // what has been loaded, and what loads later
  };
  if ("serviceWorker" in navigator && isSecureContext) addEventListener("load", () => setTimeout(() => keep().catch(() => {}), 500));
}
