//! Applies the stored colour scheme before the first paint. A classic script on purpose: modules run after it.
//!
//! In: localStorage `tidegate.theme`. Out: `data-theme` on the root element; absent means the system decides.

try {
  const theme = localStorage.getItem("tidegate.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is switched off: the system's scheme it is.
}
