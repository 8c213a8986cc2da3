'use strict';
// What the page of a participant does besides its slice viewers: two pictures in one frame, links
// to a place in a viewer, paths to copy.
(() => {
  // Two pictures in one frame: the second while the mouse is over them, or as long as pressed.
  for (const root of document.querySelectorAll('.flicker')) {
    const flick = () => {
      root.setAttribute('aria-pressed', root.getAttribute('aria-pressed') !== 'true');
    };
    root.addEventListener('click', flick);
    root.addEventListener('keydown', (event) => {
      if (![' ', 'Enter', 'f', 'F'].includes(event.key) || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      flick();
    });
  }

  for (const link of document.querySelectorAll('a[data-viewer]')) {
    link.addEventListener('click', () => {
      const root = document.querySelector(`[data-source=${link.dataset.viewer}-slices]`);
      if (!root) return;
      // Kept for a viewer that starts only when it comes into sight.
      const { slice, label } = link.dataset;
      Object.assign(root.dataset, { slice: slice || '', label: label || '' });
      root.dispatchEvent(new CustomEvent('place'));
    });
  }

  // The path on this disk where the page was opened from a file, else the path in the folder.
  function absolute(path) {
    if (location.protocol !== 'file:') return path;
    const parts = path.split('/').map(encodeURIComponent).join('/');
    return decodeURIComponent(new URL(parts, location.href).pathname).replace(/^\/([A-Z]:)/i, '$1');
  }

  for (const button of document.querySelectorAll('.copy')) {
    const shown = button.previousElementSibling;
    button.hidden = false;
    button.addEventListener('click', async () => {
      const text = 'here' in button.dataset ? absolute(shown.textContent) : shown.textContent;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = 'Copied';
        setTimeout(() => { button.textContent = 'Copy'; }, 1500);
      } catch {
        // Without access to the clipboard the text is marked, ready for Ctrl+C.
        shown.textContent = text;
        getSelection().selectAllChildren(shown);
      }
    });
  }
})();
