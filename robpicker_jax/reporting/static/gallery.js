"use strict";
// Shows the suspicions of one kind, of one tomogram, and of a score that is high enough.
(() => {
  const element = (id) => document.getElementById(id);
  const cards = [...document.querySelectorAll(".suspicion")];
  const filter = () => {
    const kind = element("kind").value, tomogram = element("tomogram").value, least = Number(element("least").value);
    let shown = 0;
    for (const card of cards) {
      const { kind: its, tomogram: where, score } = card.dataset;
      card.hidden = (kind && its !== kind) || (tomogram && where !== tomogram) || Number(score) < least;
      shown += card.hidden ? 0 : 1;
    }
    element("least-shown").value = least.toFixed(2);
    element("shown").value = shown;
  };
  for (const id of ["kind", "tomogram", "least"]) element(id).addEventListener("input", filter);
  filter();
})();
