// The theme chosen on an earlier visit, set before the first paint. Without JavaScript the switch works for the page shown.
(() => {
  const root = document.documentElement;
  const known = ["light", "dark"];
  let kept = "";
  try { kept = localStorage.getItem("theme") || ""; } catch { /* storage forbidden: follow the system */ }
  if (known.includes(kept)) root.dataset.theme = kept;
  document.addEventListener("DOMContentLoaded", () => {
    const box = document.getElementById(`theme-${known.includes(kept) ? kept : "auto"}`);
    if (box) box.checked = true;
  });
  document.addEventListener("change", (event) => {
    if (event.target.name !== "theme") return;
    const value = event.target.value;
    if (known.includes(value)) root.dataset.theme = value; else delete root.dataset.theme;
    try { localStorage.setItem("theme", value); } catch { /* the choice then lasts as long as the page */ }
  });
})();
