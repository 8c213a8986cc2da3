'use strict';
// The scroller of a participant page: for each plane one sheet of all slices, moved under an SVG
// window, with the outlines as SVG paths in the same coordinates. A voxel, where the crosshair is,
// links the planes.
(() => {
  const SVG = 'http://www.w3.org/2000/svg';
  const CLICK_PX = 4;
  // Voxel axes across, along the columns and along the rows; the last two run from high to low.
  const AXES = { axial: [2, 0, 1], coronal: [1, 0, 2], sagittal: [0, 1, 2] };

  function svg(tag, attributes) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }

  // Grey levels are 0 to 1; CSS clips between the two steps, so the order matters.
  function grey(width, level) {
    if (width <= 2 * level) return `brightness(${1 / (2 * level)}) contrast(${2 * level / width})`;
    const gain = 1 + (1 - 2 * level) / width;
    return `contrast(${1 / (width * gain)}) brightness(${gain})`;
  }

  class Plane {
    constructor(root, data, shared) {
      this.name = root.dataset.plane;
      Object.assign(this, data.outlines.planes[this.name]);
      [this.across, ...this.along] = AXES[this.name];
      this.box = data.outlines.box;
      this.shared = shared;
      this.stage = root.querySelector('[data-part=stage]');
      this.canvas = root.querySelector('[data-part=canvas]');
      this.slider = root.querySelector('[data-part=slice]');
      this.words = root.querySelector('[data-part=place]');
      this.size = [this.width, this.height];
      this.centre = this.size.map((length) => length / 2);
      this.image = svg('image', { x: 0, y: 0 });
      this.overlay = svg('g', { transform: `scale(${1 / data.outlines.subpixels})` });
      this.paths = new Map();
      for (const muscle of data.muscles) {
        const path = svg('path', {
          fill: muscle.colour, stroke: muscle.colour, 'stroke-width': 1.5,
          'vector-effect': 'non-scaling-stroke', 'fill-rule': 'evenodd',
        });
        this.overlay.append(path);
        this.paths.set(muscle.index, path);
      }
      this.lines = [0, 1].map(() => svg('line', {
        class: 'crosshair', 'vector-effect': 'non-scaling-stroke',
      }));
      this.canvas.append(this.image, this.overlay, ...this.lines);
      this.slider.max = this.slices.length - 1;
    }

    load(address) {
      const sheet = new Image();
      return new Promise((resolve) => {
        sheet.addEventListener('load', () => {
          this.image.setAttribute('width', sheet.naturalWidth);
          this.image.setAttribute('height', sheet.naturalHeight);
          this.image.setAttribute('href', sheet.src);
          resolve();
        });
        sheet.addEventListener('error', () => {
          this.words.textContent = 'The picture with these slices is broken.';
          resolve();
        });
        sheet.src = address;
      });
    }

    // The slice nearest to a voxel.
    show(at) {
      const wanted = Math.round((this.start - at[this.across]) / this.step);
      const index = Math.min(Math.max(wanted, 0), this.slices.length - 1);
      if (index !== this.index) {
        this.index = index;
        const slice = this.slices[index];
        this.image.setAttribute('x', -(index % this.columns) * this.width);
        this.image.setAttribute('y', -Math.floor(index / this.columns) * this.height);
        for (const [label, path] of this.paths) path.setAttribute('d', slice.paths[label] || '');
        // An axial slice has its number in the title, the same as in the tables.
        const count = `slice ${index + 1} of ${this.slices.length}, `;
        const words = (this.name === 'axial' ? '' : count) + slice.title;
        this.words.textContent = words;
        this.slider.value = this.slices.length - 1 - index;
        this.slider.setAttribute('aria-valuetext', words);
      }
      const [x, y] = this.pixel(at);
      this.line(0, { x1: x, x2: x, y1: 0, y2: this.height });
      this.line(1, { x1: 0, x2: this.width, y1: y, y2: y });
    }

    line(number, ends) {
      for (const [name, value] of Object.entries(ends)) {
        this.lines[number].setAttribute(name, value);
      }
    }

    // Pixel of the middle of a voxel, and the voxel under a pixel.
    pixel(at) {
      return this.along.map((axis, k) => {
        const [low, high] = this.box[axis];
        return ((high - at[axis] - 0.5) / (high - low)) * this.size[k];
      });
    }

    voxel(pixel, at) {
      const found = [...at];
      this.along.forEach((axis, k) => {
        const [low, high] = this.box[axis];
        const place = Math.floor(high - (pixel[k] / this.size[k]) * (high - low));
        found[axis] = Math.min(Math.max(place, low), high - 1);
      });
      return found;
    }

    frame() {
      const shown = this.size.map((length) => length / this.shared.zoom());
      // What is asked for is kept: zoomed further in, more of it can be had.
      this.middle = this.centre.map((at, k) => {
        return Math.min(Math.max(at, shown[k] / 2), this.size[k] - shown[k] / 2);
      });
      const corner = this.middle.map((at, k) => at - shown[k] / 2);
      this.canvas.setAttribute('viewBox', `${corner.join(' ')} ${shown.join(' ')}`);
    }

    // The pixel of the sheet's slice under a point of the window.
    under(event) {
      const point = new DOMPoint(event.clientX, event.clientY);
      const { x, y } = point.matrixTransform(this.canvas.getScreenCTM().inverse());
      return [x, y];
    }
  }

  function start(root) {
    const data = JSON.parse(document.getElementById(root.dataset.source).textContent);
    const { first, unsure, muscles: largest } = data.outlines;
    const part = (name) => root.querySelector(`[data-part=${name}]`);
    const controls = {};
    for (const name of ['opacity', 'window', 'level', 'zoom']) controls[name] = part(name);
    const boxes = [...root.querySelectorAll('[data-part=muscles] input')];
    const shared = { zoom: () => Number(controls.zoom.value) };
    const planes = [...root.querySelectorAll('[data-plane]')].map(
      (each) => new Plane(each, data, shared),
    );
    let at = first;
    let last = -1;

    function go(voxel, { follow = true } = {}) {
      at = voxel;
      for (const plane of planes) {
        plane.show(at);
        if (follow) {
          plane.centre = plane.pixel(at);
          plane.frame();
        }
      }
    }

    function paint() {
      const filter = grey(controls.window.value / 100, controls.level.value / 100);
      for (const plane of planes) {
        plane.image.style.filter = filter;
        for (const path of plane.paths.values()) {
          path.setAttribute('fill-opacity', controls.opacity.value / 100);
        }
      }
    }

    function set(control, value) {
      control.value = value;
      control.dispatchEvent(new Event('input'));
    }
    const step = (control, by) => set(control, Number(control.value) + by);

    function flip(name) {
      part(name).checked = !part(name).checked;
      part(name).dispatchEvent(new Event('change'));
    }

    function toggle(box) {
      for (const plane of planes) {
        plane.paths.get(box.value).style.display = box.checked ? '' : 'none';
      }
    }

    function all(on) {
      for (const box of boxes) {
        box.checked = on;
        toggle(box);
      }
    }

    function reset() {
      for (const control of Object.values(controls)) set(control, control.defaultValue);
      for (const name of ['outlines', 'crosshair']) if (!part(name).checked) flip(name);
      all(true);
      go(first);
    }

    function nextMuscle() {
      const there = boxes.map((box) => box.value).filter((label) => largest[label]);
      if (!there.length) return;
      last = (last + 1) % there.length;
      go(largest[there[last]]);
    }

    const KEYS = {
      ArrowUp: (plane) => step(plane.slider, 1),
      ArrowDown: (plane) => step(plane.slider, -1),
      PageUp: (plane) => step(plane.slider, 5),
      PageDown: (plane) => step(plane.slider, -5),
      Home: (plane) => set(plane.slider, plane.slices.length - 1),
      End: (plane) => set(plane.slider, 0),
      o: () => flip('outlines'),
      x: () => flip('crosshair'),
      n: nextMuscle,
      u: () => unsure && go(unsure),
      '+': () => step(controls.zoom, 0.5),
      '-': () => step(controls.zoom, -0.5),
      '[': () => step(controls.opacity, -10),
      ']': () => step(controls.opacity, 10),
      r: reset,
    };

    for (const plane of planes) {
      const { stage } = plane;
      plane.slider.addEventListener('input', () => {
        const voxel = [...at];
        const index = plane.slices.length - 1 - Number(plane.slider.value);
        voxel[plane.across] = plane.start - index * plane.step;
        go(voxel, { follow: false });
      });
      stage.addEventListener('keydown', (event) => {
        const action = KEYS[event.key] || KEYS[event.key.toLowerCase()];
        if (!action || event.ctrlKey || event.altKey || event.metaKey) return;
        event.preventDefault();
        action(plane);
      });
      // Only once the picture has the focus: else the wheel scrolls the page, as everywhere.
      stage.addEventListener('wheel', (event) => {
        if (document.activeElement !== stage || event.ctrlKey) return;
        event.preventDefault();
        step(plane.slider, event.deltaY < 0 ? 1 : -1);
      }, { passive: false });

      let drag = null;
      stage.addEventListener('pointerdown', (event) => {
        if (event.button !== 0) return;
        stage.focus({ preventScroll: true });
        drag = { from: [event.clientX, event.clientY], moved: false };
        drag.to = drag.from;
        stage.setPointerCapture(event.pointerId);
      });
      stage.addEventListener('pointermove', (event) => {
        if (!drag) return;
        const now = [event.clientX, event.clientY];
        drag.moved ||= Math.hypot(now[0] - drag.from[0], now[1] - drag.from[1]) > CLICK_PX;
        if (!drag.moved) return;
        const by = now.map((value, k) => value - drag.to[k]);
        drag.to = now;
        if (shared.zoom() > 1) {
          const scale = plane.width / shared.zoom() / plane.canvas.clientWidth;
          plane.centre = plane.middle.map((value, k) => value - by[k] * scale);
          plane.frame();
        } else {
          step(controls.window, by[0] / 2);
          step(controls.level, by[1] / 4);
        }
      });
      stage.addEventListener('pointerup', (event) => {
        if (drag && !drag.moved) {
          go(plane.voxel(plane.under(event), at), { follow: shared.zoom() === 1 });
        }
        drag = null;
      });
      stage.addEventListener('pointercancel', () => { drag = null; });
    }

    for (const name of ['opacity', 'window', 'level']) {
      controls[name].addEventListener('input', paint);
    }
    controls.zoom.addEventListener('input', () => planes.forEach((plane) => plane.frame()));
    part('outlines').addEventListener('change', () => {
      for (const plane of planes) {
        plane.overlay.style.display = part('outlines').checked ? '' : 'none';
      }
    });
    part('crosshair').addEventListener('change', () => {
      for (const line of planes.flatMap((plane) => plane.lines)) {
        line.style.display = part('crosshair').checked ? '' : 'none';
      }
    });
    for (const box of boxes) box.addEventListener('change', () => toggle(box));
    for (const button of root.querySelectorAll('[data-go]')) {
      const voxel = button.dataset.go === 'unsure' ? unsure : largest[button.dataset.go];
      button.hidden = !voxel;
      button.addEventListener('click', () => go(voxel));
    }
    part('all').addEventListener('click', () => all(true));
    part('none').addEventListener('click', () => all(false));
    part('reset').addEventListener('click', reset);
    // A warning that names a slice leads there.
    const goToSlice = (index) => go([at[0], at[1], index]);
    root.addEventListener('slice', (event) => goToSlice(event.detail));
    go(first);
    if (root.dataset.slice) goToSlice(Number(root.dataset.slice));
    paint();
    root.hidden = false;
    Promise.all(planes.map((plane) => plane.load(data.sheets[plane.name]))).then(() => {
      root.dataset.ready = '';
    });
  }

  // Two pictures on each other: the second while the mouse is over them, or as long as pressed.
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

  for (const link of document.querySelectorAll('a[data-slice]')) {
    link.addEventListener('click', () => {
      const root = document.querySelector(`[data-source=${link.dataset.viewer}-slices]`);
      if (!root) return;
      // Kept for a scroller that starts only when it comes into sight.
      root.dataset.slice = link.dataset.slice;
      root.dispatchEvent(new CustomEvent('slice', { detail: Number(link.dataset.slice) }));
    });
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
