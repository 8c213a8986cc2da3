'use strict';
// The editor of one scan. NiiVue shows the images and has the tools; this file connects them with
// the page and the server. All images come in one voxel order (see review/voxels.py), so that the
// bytes of the drawing are those of the label map, x fastest.
(async () => {
  const $ = (id) => document.getElementById(id);
  const facts = JSON.parse($('data').textContent);
  const base = `../scan/${facts.scan}`;
  const [nx, ny, nz] = facts.shape;
  const UNDO_STEPS = 32;
  const TYPING_MS = 800;
  const POLL_MS = 700;
  const say = (text) => { $('message').textContent = text; };
  const keep = (name, value) => { try { localStorage.setItem(`bids_muscle/${name}`, value); } catch { /* not kept */ } };
  const kept = (name) => { try { return localStorage.getItem(`bids_muscle/${name}`) || ''; } catch { return ''; } };
  const element = (tag, text) => {
    const node = document.createElement(tag);
    if (text) node.textContent = text;
    return node;
  };

  let chosen = 1;
  let tool = 'look';
  let dirty = false;
  let undos = 0;
  let drawn = []; // axial slices, the last one drawn on at the end
  let start = { key: 'published', sha256: '' };
  let revision = facts.revision;
  let before = new Uint8Array(nx * ny * nz);

  const nv = new niivue.Niivue({
    backColor: [0, 0, 0, 1],
    clipPlaneHotKey: 'None',
    crosshairColor: [0.47, 0.8, 1, 0.6],
    crosshairWidth: 0.3,
    cycleClipPlaneHotKey: 'None',
    dragAndDropEnabled: false,
    dragMode: niivue.DRAG_MODE.windowing,
    isNearestInterpolation: false,
    isRadiologicalConvention: true,
    logLevel: 'error',
    maxDrawUndoBitmaps: UNDO_STEPS,
    multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS,
    show3Dcrosshair: true,
    viewModeHotKey: 'None',
  });

  // The picture.
  async function show(key) {
    while (nv.volumes.length) nv.removeVolumeByIndex(0);
    await nv.loadVolumes([{ url: `${base}/image/${key}.nii`, name: `${key}.nii`, colormap: 'gray' }]);
    const volume = nv.volumes[0];
    if (volume.permRAS.join() !== '1,2,3' || volume.dimsRAS.slice(1, 4).join() !== facts.shape.join()) {
      throw new Error('The image has another voxel order than the label map.');
    }
    await overlay();
    windowing();
  }

  async function overlay() {
    while (nv.volumes.length > 1) nv.removeVolumeByIndex(1);
    const key = $('map').value;
    if (key) {
      const fat = key === 'fat_fraction';
      await nv.addVolumeFromUrl({
        url: `${base}/image/${key}.nii`, name: `${key}.nii`, colormap: fat ? 'hot' : 'viridis',
        cal_min: 0, cal_max: fat ? 1 : 100, opacity: 0,
      });
    }
    blend();
    nv.createOnLocationChange();
  }

  // A map would hide the muscles in three dimensions.
  function blend() {
    const solid = nv.opts.sliceType === nv.sliceTypeRender;
    if (nv.volumes[1]) nv.setOpacity(1, solid ? 0 : Number($('map-opacity').value) / 100);
    nv.setDrawOpacity(solid ? 1 : Number($('opacity').value) / 100);
  }

  function windowing() {
    const { global_min: low, global_max: high } = nv.volumes[0];
    const middle = low + (high - low) * Number($('level').value) / 100;
    const half = (high - low) * Number($('window').value) / 200;
    nv.volumes[0].cal_min = middle - half;
    nv.volumes[0].cal_max = middle + half;
    nv.updateGLVolume();
  }

  function colours() {
    const shown = new Set([...$('labels').querySelectorAll('[type=checkbox]')]
      .filter((box) => box.checked).map((box) => Number(box.value)));
    const channel = (place) => [0, ...facts.labels.map((label) => label.rgb[place])];
    nv.setDrawColormap({
      R: channel(0), G: channel(1), B: channel(2),
      A: [0, ...facts.labels.map((_, k) => (shown.has(k + 1) ? 255 : 0))],
      labels: ['', ...facts.labels.map((label) => label.name)],
    });
  }

  function where(location) {
    const [x, y, z] = location.vox.map((value) => Math.round(value));
    const label = nv.drawBitmap ? nv.drawBitmap[x + nx * (y + ny * z)] : 0;
    const mm = facts.affine.slice(0, 3).map((row) => row[0] * x + row[1] * y + row[2] * z + row[3]);
    $('slice').textContent = `Axial slice ${z} (0 to ${nz - 1}), level ${facts.levels[z] || 'unknown'}, `
      + `x ${mm[0].toFixed(0)}, y ${mm[1].toFixed(0)}, z ${mm[2].toFixed(0)} mm`;
    $('under').textContent = label ? facts.labels[label - 1].name : 'no muscle';
    $('under').dataset.label = label;
    $('values').textContent = location.values
      .map(({ name, value }) => `${name.replace('.nii', '')} ${Number.isFinite(value) ? Number(value.toPrecision(3)) : 'n/a'}`).join(', ');
  }

  // The label map is the drawing of NiiVue.
  async function load(key) {
    const answer = await ask(`${base}/labels/${encodeURIComponent(key)}`);
    const bytes = new Uint8Array(await answer.arrayBuffer());
    start = { key, sha256: answer.headers.get('X-SHA256') };
    nv.createEmptyDrawing();
    nv.drawBitmap.set(bytes);
    nv.drawClearAllUndoBitmaps();
    before.set(bytes);
    add(true);
    undos = 0;
    drawn = [];
    dirty = false;
    nv.refreshDrawing(true);
    state();
  }

  const add = nv.drawAddUndoBitmap.bind(nv);
  // All tools of NiiVue end here, with the drawing as they left it.
  nv.drawAddUndoBitmap = (overwrites = true) => {
    const now = nv.drawBitmap;
    const own = (label) => !label || label === chosen;
    const slices = new Set();
    let reverted = false;
    for (let k = 0; k < now.length; k += 1) {
      if (now[k] !== before[k]) {
        if ($('lock').checked && !(own(before[k]) && own(now[k]))) {
          now[k] = before[k];
          reverted = true;
        } else {
          slices.add(Math.floor(k / (nx * ny)));
        }
      }
    }
    if (reverted) nv.refreshDrawing(true);
    if (!slices.size) return;
    before.set(now);
    add(overwrites);
    undos = Math.min(undos + 1, UNDO_STEPS - 1);
    drawn = [...drawn.filter((slice) => !slices.has(slice)), ...slices];
    dirty = true;
    if (drawn.length > 1) {
      const [a, b] = drawn.slice(-2);
      $('low').value = Math.min(a, b);
      $('high').value = Math.max(a, b);
    }
    state();
  };

  function undo() {
    if (!undos) return;
    undos -= 1;
    nv.drawUndo();
    before.set(nv.drawBitmap);
    dirty = true;
    state();
  }

  function interpolate() {
    const [low, high] = [Number($('low').value), Number($('high').value)];
    if (!($('low').value && $('high').value && high - low > 1 && high < nz)) {
      say('Draw the muscle on two axial slices, or enter two slices, with others between them.');
      return;
    }
    // NiiVue knows one label at a time.
    const now = nv.drawBitmap;
    const alone = now.map((label, k) => {
      const z = Math.floor(k / (nx * ny));
      return (z === low || z === high) && label === chosen ? chosen : 0;
    });
    nv.drawBitmap = alone;
    nv.interpolateMaskSlices(low, high, { useIntensityGuided: false, sliceType: nv.sliceTypeAxial });
    const made = nv.drawBitmap;
    nv.drawBitmap = now;
    const size = nx * ny;
    for (let k = (low + 1) * size; k < high * size; k += 1) {
      if (made[k]) now[k] = chosen; else if (now[k] === chosen) now[k] = 0;
    }
    nv.drawAddUndoBitmap();
    nv.refreshDrawing(true);
  }

  function choose(label) {
    if (label < 1 || label > facts.labels.length) return;
    chosen = label;
    $(`label-${label}`).checked = true;
    take(tool);
  }

  function take(name) {
    tool = facts.readonly ? 'look' : name;
    nv.opts.clickToSegment = tool === 'grow';
    nv.opts.clickToSegmentIs2D = true;
    nv.opts.clickToSegmentPercent = Number($('tolerance').value) / 100;
    nv.opts.clickToSegmentAutoIntensity = true;
    nv.opts.penSize = Number($('size').value);
    nv.setPenValue(tool === 'eraser' ? 0 : chosen, tool === 'fill');
    nv.opts.drawingEnabled = tool !== 'look';
    for (const button of document.querySelectorAll('[data-tool]')) {
      button.setAttribute('aria-pressed', String(button.dataset.tool === tool));
    }
  }

  function otherSide() {
    const { muscle, side } = facts.labels[chosen - 1];
    choose(facts.labels.findIndex((each) => each.muscle === muscle && each.side !== side) + 1);
  }

  function state() {
    $('undo').disabled = !undos;
    $('save').disabled = facts.readonly || !dirty;
    $('measure').disabled = facts.readonly || dirty;
  }

  // The server.
  async function ask(address, options) {
    const answer = await fetch(address, options);
    if (answer.ok) return answer;
    const text = await answer.text();
    let content = { message: text };
    try { content = JSON.parse(text); } catch { /* a sentence */ }
    throw Object.assign(new Error(content.message), content);
  }

  const rater = () => $('rater').value.trim();

  async function save() {
    const query = new URLSearchParams({
      rater: rater(), start: start.key, startSha256: start.sha256, revision, passed: String($('passed').checked),
    });
    try {
      const body = nv.drawBitmap.slice();
      const answer = await (await ask(`${base}/correction?${query}`, {
        method: 'POST', body, headers: { 'Content-Type': 'application/octet-stream' },
      })).json();
      revision = answer.revision;
      dirty = false;
      const changed = answer.VoxelsChanged === 'n/a' ? '' : `, ${answer.VoxelsChanged} voxels changed`;
      $('saved').textContent = `Saved at ${answer.SavedAt.slice(11, 16)} UTC${changed}.`;
      say('');
      state();
    } catch (error) {
      if (error.revision !== undefined) revision = error.revision;
      $('saved').textContent = '';
      say(error.message);
    }
  }

  async function measure() {
    try {
      progress(await (await ask(`${base}/measure`, { method: 'POST' })).json());
    } catch (error) {
      say(error.message);
    }
  }

  async function poll() {
    try {
      progress(await (await ask(`${base}/measure`)).json());
    } catch (error) {
      say(error.message);
    }
  }

  function progress(job) {
    const words = {
      none: '', running: `Measuring: ${job.step} …`, failed: `Measuring failed. ${job.step}`,
      done: 'Measured. Before → after:',
    };
    $('measuring').textContent = words[job.state];
    if (job.state === 'running') {
      $('measure').disabled = true;
      setTimeout(poll, POLL_MS);
      return;
    }
    state();
    $('measures').hidden = job.state !== 'done';
    if (job.state !== 'done') return;
    if (job.segmentation !== facts.segmentation) {
      facts.segmentation = job.segmentation;
      facts.rating = null;
      rated();
    }
    const table = element('table');
    const head = element('tr');
    head.append(element('th', 'Muscle'), ...job.measures.map((name) => element('th', name)));
    const rows = job.rows.map((row) => {
      const line = element('tr');
      line.append(element('th', row.name), ...row.after.map((value, k) => {
        const changed = value !== row.before[k];
        const cell = element('td', changed ? `${row.before[k]} → ${value}` : value);
        cell.className = 'number';
        if (changed) cell.append(element('span', ' *'));
        return cell;
      }));
      return line;
    });
    table.append(head, ...rows);
    $('measures').replaceChildren(table);
  }

  function rated() {
    const given = facts.rating ? facts.rating.rating : '';
    for (const button of document.querySelectorAll('.rate')) {
      button.setAttribute('aria-pressed', String(button.dataset.rating === given));
    }
  }

  async function rate(rating) {
    const row = {
      scan: facts.scan, segmentation: facts.segmentation, rating, muscles: (facts.rating || {}).muscles || [],
      comment: $('comment').value.trim(), rater: rater(), rated_at: '',
    };
    try {
      await ask('../rating', {
        method: 'POST', body: JSON.stringify(row), headers: { 'Content-Type': 'application/json' },
      });
      facts.rating = row;
      rated();
      say(`Rated ${rating}.`);
      if ($('follow').checked) await next();
    } catch (error) {
      say(error.message);
    }
  }

  async function next() {
    const query = new URLSearchParams({ after: facts.scan, rater: rater() });
    const { scan } = await (await ask(`../next?${query}`)).json();
    if (scan) location.href = `${scan}?${new URLSearchParams({ rater: rater() })}`;
    else say('All other scans are rated.');
  }

  // The page.
  function fill() {
    facts.labels.forEach((label, k) => {
      const row = element('div');
      const radio = Object.assign(element('input'), { type: 'radio', name: 'label', id: `label-${k + 1}`, checked: !k });
      radio.addEventListener('change', () => choose(k + 1));
      const box = Object.assign(element('input'), { type: 'checkbox', value: String(k + 1), checked: true });
      box.setAttribute('aria-label', `Show ${label.name}`);
      box.addEventListener('change', colours);
      const swatch = element('span');
      swatch.className = 'swatch';
      swatch.style.background = `rgb(${label.rgb.join()})`;
      const name = element('label');
      name.append(radio, ' ', swatch, `${k + 1} ${label.name}`);
      row.append(name, box);
      $('labels').append(row);
    });
    for (const key of facts.images) $('image').append(new Option(key, key));
    for (const [key, name] of Object.entries(facts.maps)) $('map').append(new Option(name, key));
    for (const each of facts.starts) {
      const whose = each.rater ? `${each.rater}, ${each.savedAt.slice(0, 16).replace('T', ' ')}` : 'the published map';
      const remark = each.rater ? [each.passed ? '' : 'draft', each.counts ? 'counts' : ''].filter(Boolean).join(', ') : '';
      $('start').append(new Option(remark ? `${whose} (${remark})` : whose, each.key));
    }
    $('rater').value = facts.rater || kept('rater');
    $('comment').value = facts.rating ? facts.rating.comment : '';
    $('follow').checked = kept('follow') === 'yes';
    if (facts.readonly) {
      say('The output folder is read-only: nothing can be saved here.');
      for (const id of ['drawing', 'saving', 'rating']) $(id).disabled = true;
    }
    rated();
    state();
  }

  let typed = '';
  let typedAt = 0;
  function type(digit) {
    typed = Date.now() - typedAt < TYPING_MS ? typed + digit : digit;
    typedAt = Date.now();
    choose(Number(typed));
  }

  const KEYS = {
    v: () => take('look'), b: () => take('brush'), e: () => take('eraser'), f: () => take('fill'), g: () => take('grow'),
    z: undo,
    i: interpolate,
    l: () => { $('lock').checked = !$('lock').checked; },
    s: otherSide,
    t: () => choose(Number($('under').dataset.label)),
    arrowup: () => nv.moveCrosshairInVox(0, 0, 1),
    arrowdown: () => nv.moveCrosshairInVox(0, 0, -1),
    '[': () => { $('size').stepDown(); take(tool); },
    ']': () => { $('size').stepUp(); take(tool); },
  };

  // NiiVue has keys of its own, which are not those of this page.
  document.addEventListener('keydown', (event) => {
    const inText = event.target.matches('textarea, select, input:not([type=radio], [type=checkbox], [type=range])');
    if (inText || event.altKey || event.metaKey || (event.ctrlKey && event.key !== 'z')) return;
    if (event.target === $('canvas')) event.stopImmediatePropagation();
    const key = event.key.toLowerCase();
    if (event.target.matches('[type=radio], [type=range]') && key.startsWith('arrow')) return;
    const action = /^\d$/.test(key) ? () => type(key) : KEYS[key];
    if (!action) return;
    event.preventDefault();
    action();
  }, true);

  function wire() {
    const on = (id, kind, action) => $(id).addEventListener(kind, action);
    for (const button of document.querySelectorAll('[data-view]')) {
      button.addEventListener('click', () => {
        nv.setSliceType(Number(button.dataset.view));
        blend();
        for (const each of document.querySelectorAll('[data-view]')) {
          each.setAttribute('aria-pressed', String(each === button));
        }
      });
    }
    for (const button of document.querySelectorAll('[data-tool]')) {
      button.addEventListener('click', () => take(button.dataset.tool));
    }
    for (const button of document.querySelectorAll('.rate')) {
      button.addEventListener('click', () => rate(button.dataset.rating));
    }
    on('image', 'change', async () => {
      const drawing = nv.drawBitmap.slice();
      await show($('image').value);
      nv.drawBitmap = drawing;
      nv.refreshDrawing(true);
    });
    on('map', 'change', overlay);
    on('opacity', 'input', blend);
    on('map-opacity', 'input', blend);
    on('window', 'input', windowing);
    on('level', 'input', windowing);
    on('size', 'input', () => take(tool));
    on('tolerance', 'input', () => take(tool));
    for (const [id, shown] of [['all', true], ['none', false]]) {
      on(id, 'click', () => {
        for (const box of $('labels').querySelectorAll('[type=checkbox]')) box.checked = shown;
        colours();
      });
    }
    on('undo', 'click', undo);
    on('interpolate', 'click', interpolate);
    on('save', 'click', save);
    on('measure', 'click', measure);
    on('next', 'click', () => next().catch((error) => say(error.message)));
    on('passed', 'change', () => { dirty = true; state(); });
    on('follow', 'change', () => keep('follow', $('follow').checked ? 'yes' : 'no'));
    on('rater', 'change', () => {
      keep('rater', rater());
      if (!dirty) location.search = new URLSearchParams({ rater: rater() });
      else revision = '';
    });
    on('start', 'change', () => {
      if (dirty && !window.confirm('Leave what you drew and start from this map?')) $('start').value = start.key;
      else load($('start').value).then(() => { dirty = $('start').value !== facts.own; state(); }, (error) => say(error.message));
    });
    window.addEventListener('beforeunload', (event) => { if (dirty) event.preventDefault(); });
  }

  nv.onLocationChange = where;
  fill();
  try {
    await nv.attachToCanvas($('canvas'));
    await show(facts.images[0]);
    nv.setSliceType(nv.sliceTypeMultiplanar);
    colours();
    const own = facts.own || 'published';
    $('start').value = own;
    await load(own);
    const middle = before.findIndex(Boolean);
    if (middle >= 0) nv.moveCrosshairInVox(0, 0, Math.floor(middle / (nx * ny)) - Math.floor(nz / 2) + 1);
    take('look');
    wire();
    progress(facts.measuring);
    document.documentElement.dataset.ready = 'yes';
  } catch (error) {
    say(`The scan cannot be shown: ${error.message} The editor needs a browser with WebGL 2.`);
  }
  // For tests, and for a console.
  window.editor = { nv, facts, load, choose, take };
})();
