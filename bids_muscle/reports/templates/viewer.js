'use strict';
// The scroller of a participant page: one sheet of all axial slices, moved under an SVG window,
// with the outlines as SVG paths in the same coordinates.
(() => {
  const SVG = 'http://www.w3.org/2000/svg';
  const MAX_ZOOM = 6;

  function svg(tag, attributes) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }

  function start(root) {
    const data = JSON.parse(document.getElementById(root.dataset.source).textContent);
    const { columns, width, height, slices, subpixels, first } = data.outlines;
    const part = (name) => root.querySelector(`[data-part=${name}]`);
    const stage = part('stage');
    const canvas = part('canvas');
    const controls = {};
    for (const name of ['slice', 'opacity', 'brightness', 'contrast', 'zoom']) {
      controls[name] = part(name);
    }
    const sheet = new Image();
    const picture = svg('image', { x: 0, y: 0 });
    const overlay = svg('g', { transform: `scale(${1 / subpixels})` });
    const paths = new Map();
    let centre = [width / 2, height / 2];

    for (const muscle of data.muscles) {
      const path = svg('path', {
        fill: muscle.colour, stroke: muscle.colour, 'stroke-width': 1.5,
        'vector-effect': 'non-scaling-stroke', 'fill-rule': 'evenodd',
      });
      overlay.append(path);
      paths.set(muscle.index, path);
    }
    canvas.append(picture, overlay);

    function place() {
      const index = slices.length - 1 - Number(controls.slice.value);
      const slice = slices[index];
      picture.setAttribute('x', -(index % columns) * width);
      picture.setAttribute('y', -Math.floor(index / columns) * height);
      for (const [label, path] of paths) path.setAttribute('d', slice.paths[label] || '');
      const words = `slice ${index + 1} of ${slices.length}, ${slice.title}`;
      part('place').textContent = words;
      controls.slice.setAttribute('aria-valuetext', words);
    }

    function paint() {
      for (const path of paths.values()) {
        path.setAttribute('fill-opacity', controls.opacity.value / 100);
      }
      picture.style.filter = `brightness(${controls.brightness.value}%) `
        + `contrast(${controls.contrast.value}%)`;
    }

    function frame() {
      const zoom = Number(controls.zoom.value);
      const size = [width / zoom, height / zoom];
      centre = centre.map((at, axis) => {
        const half = size[axis] / 2;
        return Math.min(Math.max(at, half), [width, height][axis] - half);
      });
      const corner = centre.map((at, axis) => at - size[axis] / 2);
      canvas.setAttribute('viewBox', `${corner.join(' ')} ${size.join(' ')}`);
    }

    function set(name, value) {
      const control = controls[name];
      control.value = value;
      control.dispatchEvent(new Event('input'));
    }
    const step = (name, by) => set(name, Number(controls[name].value) + by);

    function outlines(on) {
      const hidden = on === undefined ? overlay.style.display !== 'none' : !on;
      overlay.style.display = hidden ? 'none' : '';
      part('outlines').checked = !hidden;
    }

    function toggle(box) {
      paths.get(box.value).style.display = box.checked ? '' : 'none';
    }

    function reset() {
      for (const name of ['opacity', 'brightness', 'contrast', 'zoom']) {
        set(name, controls[name].defaultValue);
      }
      for (const box of root.querySelectorAll('[data-part=muscles] input')) {
        box.checked = true;
        toggle(box);
      }
      outlines(true);
    }

    const KEYS = {
      ArrowUp: () => step('slice', 1),
      ArrowDown: () => step('slice', -1),
      PageUp: () => step('slice', 5),
      PageDown: () => step('slice', -5),
      Home: () => set('slice', slices.length - 1),
      End: () => set('slice', 0),
      o: () => outlines(),
      '+': () => step('zoom', 0.5),
      '-': () => step('zoom', -0.5),
      '[': () => step('opacity', -10),
      ']': () => step('opacity', 10),
      r: reset,
    };
    stage.addEventListener('keydown', (event) => {
      const action = KEYS[event.key] || KEYS[event.key.toLowerCase()];
      if (!action || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      action();
    });
    // Only once the picture has the focus: else the wheel scrolls the page, as everywhere.
    stage.addEventListener('wheel', (event) => {
      if (document.activeElement !== stage || event.ctrlKey) return;
      event.preventDefault();
      step('slice', event.deltaY < 0 ? 1 : -1);
    }, { passive: false });

    let drag = null;
    stage.addEventListener('pointerdown', (event) => {
      stage.focus({ preventScroll: true });
      drag = [event.clientX, event.clientY];
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener('pointermove', (event) => {
      if (!drag) return;
      const by = [event.clientX - drag[0], event.clientY - drag[1]];
      drag = [event.clientX, event.clientY];
      if (controls.zoom.value > 1) {
        const scale = width / controls.zoom.value / canvas.clientWidth;
        centre = centre.map((at, axis) => at - by[axis] * scale);
        frame();
      } else {
        step('contrast', by[0] / 2);
        step('brightness', -by[1] / 2);
      }
    });
    for (const name of ['pointerup', 'pointercancel']) {
      stage.addEventListener(name, () => { drag = null; });
    }

    controls.slice.max = slices.length - 1;
    controls.slice.value = slices.length - 1 - first;
    controls.zoom.max = MAX_ZOOM;
    controls.slice.addEventListener('input', place);
    for (const name of ['opacity', 'brightness', 'contrast']) {
      controls[name].addEventListener('input', paint);
    }
    controls.zoom.addEventListener('input', frame);
    part('outlines').addEventListener('change', () => outlines(part('outlines').checked));
    part('reset').addEventListener('click', reset);
    for (const box of root.querySelectorAll('[data-part=muscles] input')) {
      box.addEventListener('change', () => toggle(box));
      toggle(box);
    }
    for (const [name, on] of [['all', true], ['none', false]]) {
      part(name).addEventListener('click', () => {
        for (const box of root.querySelectorAll('[data-part=muscles] input')) {
          box.checked = on;
          toggle(box);
        }
      });
    }
    sheet.addEventListener('load', () => {
      picture.setAttribute('width', sheet.naturalWidth);
      picture.setAttribute('height', sheet.naturalHeight);
      picture.setAttribute('href', sheet.src);
      root.dataset.ready = '';
    });
    place();
    paint();
    frame();
    root.hidden = false;
    sheet.src = data.sheet;
  }

  // A scan that is not in sight costs nothing yet.
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((each) => each.isIntersecting)) {
      seen.unobserve(entry.target);
      start(entry.target.nextElementSibling);
    }
  }, { rootMargin: '600px' });
  for (const root of document.querySelectorAll('.viewer')) {
    const mark = document.createElement('span');
    root.before(mark);
    seen.observe(mark);
  }
})();
