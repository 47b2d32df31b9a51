"use strict";
// Filters and sorts the models of the report. Without it the page shows everything, in its first order.
(() => {
  const byId = (id) => document.getElementById(id);
  const table = byId("overview-table");
  const groups = [...table.tBodies].map((row, index) => ({
    row,
    index,
    section: byId(row.dataset.slug).closest(".model"),
    words: row.dataset.words.toLowerCase(),
  }));
  const field = { words: byId("filter-words"), verdict: byId("filter-verdict"), order: byId("order") };

  const shows = ({ row, words }) =>
    field.words.value.toLowerCase().split(/\s+/).every((word) => words.includes(word)) &&
    (field.verdict.value === "" || row.dataset.verdict === field.verdict.value);

  const value = ({ row }, key) => (row.dataset[key] === "" ? -Infinity : Number(row.dataset[key]));

  const compare = (left, right) => {
    const key = field.order.value;
    if (key === "name") {
      return left.row.dataset.name.localeCompare(right.row.dataset.name);
    }
    const difference = key === "" ? 0 : value(right, key) - value(left, key);
    return difference || left.index - right.index;
  };

  const apply = () => {
    for (const group of [...groups].sort(compare)) {
      const hidden = !shows(group);
      group.row.hidden = group.section.hidden = hidden;
      table.append(group.row);
      group.section.parentElement.append(group.section);
    }
    const shown = groups.filter(({ row }) => !row.hidden).length;
    byId("shown").textContent = `${shown} of ${groups.length} models`;
  };

  // A link to a model works whatever is folded or filtered away.
  const followLink = () => {
    const target = byId(decodeURIComponent(location.hash.slice(1)));
    const section = target && target.closest(".model");
    if (!section) {
      return;
    }
    if (section.hidden) {
      field.words.value = field.verdict.value = "";
      apply();
    }
    if (section.tagName === "DETAILS") {
      section.open = true;
    }
    target.scrollIntoView();
  };

  for (const control of Object.values(field)) {
    control.addEventListener("input", apply);
  }
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("unfold").addEventListener("click", () => {
    const folded = [...document.querySelectorAll("details.model")];
    const open = !folded.every((section) => section.open);
    for (const section of folded) {
      section.open = open;
    }
  });
  byId("controls").hidden = false;
  addEventListener("hashchange", followLink);
  apply();
  followLink();
})();
