// What the pages do beyond htmx: the state of the live connection, and two keys.
(() => {
  const say = (state, text) => {
    const mark = document.getElementById("live");
    if (!mark) return;
    mark.dataset.state = state;
    mark.querySelector("span").textContent = text;
  };
  document.addEventListener("htmx:sse:after:connection", () => say("on", "live"));
  document.addEventListener("htmx:sse:before:connection", () => say("off", "connecting"));
  document.addEventListener("htmx:sse:error", () => say("off", "reconnecting"));
  document.addEventListener("htmx:sse:close", () => say("off", "not live"));
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const field = document.getElementById("q");
      if (field) { event.preventDefault(); field.focus(); field.select(); }
    }
    if (event.key === "Escape" && typing) typing.blur();
  });
})();
