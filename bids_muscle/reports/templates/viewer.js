'use strict';
// The slice viewer of a participant page: for each plane one sheet of all slices, moved under an SVG
// window, with the outlines as SVG paths in the same coordinates. A voxel, where the crosshair is,
// links the planes.
(() => {
  const SVG = 'http://www.w3.org/2000/svg';
  const CLICK_PX = 4;
  // A notch of a wheel has 100 or more; a touchpad sends many small steps.
  const WHEEL_PX = 50;
  const PAUSE_MS = 400;
  const BLINK_MS = 500;
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
        const name = svg('title', {});
        name.textContent = muscle.name;
        path.append(name);
        this.overlay.append(path);
        this.paths.set(muscle.index, path);
      }
      this.names = new Map();
      if (data.named === this.name) {
        for (const { index, name } of data.muscles) {
          const text = svg('text', {
            class: 'name', 'font-size': (this.width * data.outlines.subpixels) / 44,
          });
          text.textContent = name;
          this.names.set(index, text);
        }
      }
      this.lines = [0, 1].map(() => svg('line', {
        class: 'crosshair', 'vector-effect': 'non-scaling-stroke',
      }));
      this.overlay.append(...this.names.values());
      this.canvas.append(this.image, this.overlay, ...this.lines);
      this.slider.max = this.slices.length - 1;
    }

    load(address) {
      const sheet = new Image();
      return new Promise((resolve) => {
        // Decoded before it is shown: outlines never lie on an empty picture.
        sheet.src = address;
        sheet.decode().then(() => {
          this.image.setAttribute('width', sheet.naturalWidth);
          this.image.setAttribute('height', sheet.naturalHeight);
          this.image.setAttribute('href', sheet.src);
        }, () => {
          this.words.textContent = 'The picture with these slices is broken.';
        }).then(resolve);
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
        this.write();
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

    // The names of what the slice shows, in the middle of each.
    write() {
      for (const [label, text] of this.names) {
        const path = this.paths.get(label);
        text.style.display = path.getAttribute('d') && !path.style.display ? '' : 'none';
        const { x, y, width, height } = path.getBBox();
        text.setAttribute('x', x + width / 2);
        text.setAttribute('y', y + height / 2);
      }
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
        plane.write();
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
      if (part('blink').checked) flip('blink');
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
      b: () => flip('blink'),
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
      // The wheel belongs to the page until the mouse moves over the picture, so that a page
      // scrolled past a picture scrolls on, and again where it begins at the last slice.
      const wheel = { own: false, at: '', sum: 0, time: 0 };
      stage.addEventListener('pointermove', (event) => {
        // Pages that scroll under a resting mouse send such events, too.
        const now = `${event.screenX} ${event.screenY}`;
        wheel.own ||= wheel.at !== '' && wheel.at !== now;
        wheel.at = now;
      });
      stage.addEventListener('pointerleave', () => { Object.assign(wheel, { own: false, at: '' }); });
      stage.addEventListener('wheel', (event) => {
        if (event.ctrlKey || !event.deltaY) return;
        if (!wheel.own && document.activeElement !== stage) return;
        const by = -Math.sign(event.deltaY);
        const paused = event.timeStamp - wheel.time > PAUSE_MS;
        wheel.time = event.timeStamp;
        const end = by > 0 ? plane.slider.max : plane.slider.min;
        if (paused) wheel.sum = 0;
        if (plane.slider.value === end && paused) {
          wheel.time = 0;
          return;
        }
        event.preventDefault();
        wheel.sum += event.deltaMode ? by * WHEEL_PX : -event.deltaY;
        if (Math.abs(wheel.sum) < WHEEL_PX) return;
        wheel.sum = 0;
        step(plane.slider, by);
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
    const overlay = (on) => {
      for (const plane of planes) plane.overlay.style.display = on ? '' : 'none';
    };
    part('outlines').addEventListener('change', () => overlay(part('outlines').checked));
    let blinking = null;
    part('blink').addEventListener('change', () => {
      clearInterval(blinking);
      let on = part('outlines').checked;
      overlay(on);
      if (!part('blink').checked) return;
      blinking = setInterval(() => {
        on = !on;
        overlay(on && part('outlines').checked);
      }, BLINK_MS);
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
    // A sentence that names a slice or a structure leads there.
    const goToPlace = () => {
      const { slice, label } = root.dataset;
      if (slice) go([at[0], at[1], Number(slice)]);
      if (label && largest[label]) go(largest[label]);
    };
    root.addEventListener('place', goToPlace);
    root.hidden = false;
    go(first);
    goToPlace();
    paint();
    Promise.all(planes.map((plane) => plane.load(data.sheets[plane.name]))).then(() => {
      root.dataset.ready = '';
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
