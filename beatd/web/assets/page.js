
(() => {
  const lost = document.getElementById("lost");
  const regions = () => document.querySelectorAll("[data-live]");
  const isMessage = document.querySelector("[data-message]") !== null;

  // Do not replace a region that has the focus or a selection.
  const inUse = (region) =>
    region.contains(document.activeElement) ||
    (String(getSelection()) !== "" && region.contains(getSelection().anchorNode));

  function replace(old, fresh) {
    const before = old.querySelectorAll("details");
    fresh.querySelectorAll("details").forEach((each, at) => (each.open = before[at]?.open ?? each.open));
    old.replaceWith(document.adoptNode(fresh));
  }

  async function load(url) {
    const answer = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (answer.redirected) {
      location.assign(answer.url); // to the login: the session is over
      throw new Error("this is not the page");
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!page.getElementById("main")) throw new Error("this is not the page");
    return page;
  }

  function show(page, keep) {
    if (isMessage && !page.querySelector("[data-message]")) return location.reload();
    for (const old of regions()) {
      const fresh = page.getElementById(old.id);
      if (fresh && !keep(old)) replace(old, fresh);
    }
    document.title = page.title;
  }

  // Live: the server says when something has changed; without its stream the page asks by itself.
  let refreshing = false;
  async function refresh() {
    if (document.hidden || refreshing || !document.querySelector("main [data-live]")) return;
    refreshing = true;
    const place = location.href;
    await load(place)
      .then((page) => place === location.href && show(page, inUse))
      .then(() => (lost.hidden = true), () => (lost.hidden = false));
    refreshing = false;
  }
  let due = 0;
  function soon() {
    if (due) return;
    due = setTimeout(() => ((due = 0), refresh()), 400);
  }
  let stream = null;
  function listen() {
    stream = new EventSource("/live");
    stream.addEventListener("change", soon);
    stream.onerror = () => {
      if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 30000);
    };
  }
  listen();
  setInterval(() => (stream.readyState === EventSource.OPEN ? 0 : refresh()), 3000);
  setInterval(refresh, 15000);
  setTimeout(refresh, 1500);
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  addEventListener("pagehide", () => stream.close());

  // Search as one types.
  const search = document.getElementById("search");
  let typing = 0;
  let asks = 0;
  search?.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(async () => {
      const asked = String(new URLSearchParams([...new FormData(search)].filter(([, text]) => text)));
      const url = asked ? `/?${asked}` : "/";
      const mine = ++asks;
      const page = await load(url).catch(() => null);
      if (!page || mine !== asks) return; // the answer to an earlier question may come after that to the last one
      history.replaceState(null, "", url);
      show(page, () => false);
    }, 200);
  });

  // Ask before what cannot be taken back.
  document.addEventListener("submit", (event) => {
    const question = event.submitter?.dataset.confirm;
    if (question && !confirm(question)) event.preventDefault();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && search && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      search.elements.q.focus();
    }
  });

  // A link to a form opens it.
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.querySelector("input:not([type=hidden])")?.focus();
  }
})();
