
(() => {
  const every = 2000;
  const lost = document.getElementById("lost");

  // Do not replace a region that has the focus or a selection.
  const inUse = (region) =>
    region.contains(document.activeElement) ||
    (String(getSelection()) !== "" && region.contains(getSelection().anchorNode));

  function replace(old, fresh) {
    const before = old.querySelectorAll("details");
    fresh.querySelectorAll("details").forEach((each, at) => (each.open = before[at]?.open ?? false));
    old.replaceWith(document.adoptNode(fresh));
  }

  async function refresh() {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!page.getElementById("overview")) throw new Error("this is not the page");
    for (const old of document.querySelectorAll("[data-live]")) {
      const fresh = page.getElementById(old.id);
      if (fresh && !inUse(old)) replace(old, fresh);
    }
    document.title = page.title;
  }

  async function loop() {
    if (!document.hidden) {
      await refresh().then(() => (lost.hidden = true), () => (lost.hidden = false));
    }
    setTimeout(loop, every);
  }

  setTimeout(loop, every);
})();
