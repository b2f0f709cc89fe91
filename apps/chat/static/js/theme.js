// Runs before the page is drawn, so that no wrong colour flashes. No module: those run later.
try {
  const chosen = localStorage.getItem("m3rag.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be forbidden; the system's own colours are then right.
}
