// The schedule in words below its field, as one types. Without JavaScript the button "Explain the schedule" shows the same.
"use strict";
{
  const form = document.getElementById("entry_form");
  const shown = document.getElementById("explanation");
  const field = (name) => form.elements.namedItem(name);
  const part = (tag, text, className) => {
    const node = document.createElement(tag);
    node.textContent = text;
    if (className) node.className = className;
    return node;
  };
  let waiting = 0;
  let asked = 0;

  const show = (said) => {
    shown.replaceChildren();
    if (said.error) {
      shown.append(part("p", said.error, "beatd-bad"));
      return;
    }
    const words = document.createElement("p");
    words.append(part("strong", said.words));
    const runs = document.createElement("ul");
    for (const run of said.runs) runs.append(part("li", run));
    shown.append(words, runs);
    for (const warning of said.warnings) shown.append(part("p", `Warning: ${warning}`, "beatd-note"));
  };

  const ask = async () => {
    const schedule = field("schedule").value.trim();
    const number = ++asked;
    if (!schedule) {
      shown.replaceChildren();
      return;
    }
    const zone = field("timezone").value.trim();
    const query = new URLSearchParams({ schedule, timezone: zone, name: field("name") ? field("name").value : "" });
    try {
      const answer = await fetch(`${form.dataset.explain}?${query}`, { credentials: "same-origin" });
      if (answer.ok && number === asked) show(await answer.json());
    } catch {
      // the page stays as it is; saving says what is wrong
    }
  };

  field("task").setAttribute("list", "tasks");
  for (const name of ["schedule", "timezone"]) {
    field(name).addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(ask, 250);
    });
  }
}
