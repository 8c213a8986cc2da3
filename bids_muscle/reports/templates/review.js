// The review page: a wall of scans, and one scan at a time to be rated by keyboard.
(() => {
  // Ratings are kept by the server where the page comes from one.
  const { $, PAGE, compare, data, element, filters, format, isText, scans } = Scans;
  const STORE = 'bids_muscle/rating/';
  const RATER = 'bids_muscle/rater';
  const FOLLOW = 'bids_muscle/follow';
  const COLUMNS = ['scan', 'segmentation', 'rating', 'muscles', 'comment', 'rater', 'rated_at'];
  const ORDER = { '': 0, pass: 1, artefact: 2, fail: 3 };
  const SYMBOL = { pass: '\u2713 pass', artefact: '\u25D0 artefact', fail: '\u2717 fail' };
  const LIGHTS = { ok: 0, check: 1, unusable: 2, failed: 3 };
  const { served } = data;
  const byName = new Map(scans.map((scan) => [scan.scan, scan]));
  const colours = new Map(data.muscles.map((muscle) => [muscle.name, muscle.colour]));
  const memory = new Map();
  let shown = [];
  let page = 0;
  let queue = [];
  let at = 0;
  let remark = '';

  const say = (text) => { $('message').textContent = text; };

  // Ratings: one entry of localStorage for each segmentation, so that they survive a reload and
  // further participants, but not another segmentation of the same scan.
  const keyOf = (scan) => `${STORE}${scan.scan}/${scan.segmentation}`;

  function valid(entry, scan) {
    return entry && typeof entry === 'object' && Object.hasOwn(ORDER, entry.rating) && isText(entry.comment)
      && isText(entry.rater) && isText(entry.rated_at) && Array.isArray(entry.muscles)
      && entry.muscles.every((name) => scan.muscles.includes(name));
  }

  function load() {
    if (served) {
      for (const scan of scans) {
        const entry = served.ratings[scan.scan];
        if (entry && entry.segmentation === scan.segmentation && valid(entry, scan)) memory.set(scan.scan, entry);
      }
      return;
    }
    for (const scan of scans) {
      try {
        const entry = JSON.parse(localStorage.getItem(keyOf(scan)));
        if (valid(entry, scan)) memory.set(scan.scan, entry);
      } catch {
        // Something else is stored there, or nothing can be: the scan counts as not rated.
      }
    }
  }

  function save(scan, entry) {
    const empty = !entry.rating && !entry.muscles.length && !entry.comment;
    const was = ratingOf(scan);
    if (empty) memory.delete(scan.scan); else memory.set(scan.scan, entry);
    if (served) {
      if (was || entry.rating) send(scan, entry);
      progress();
      return;
    }
    try {
      if (empty) localStorage.removeItem(keyOf(scan));
      else localStorage.setItem(keyOf(scan), JSON.stringify(entry));
    } catch {
      say('This browser keeps nothing for this page: export the ratings before you close it.');
    }
    progress();
  }

  // One after the other, so that the last word of a comment comes last.
  let sent = Promise.resolve();
  function send(scan, entry) {
    const row = {
      ...entry, scan: scan.scan, segmentation: scan.segmentation, rater: $('rater').value.trim(),
    };
    sent = sent.then(async () => {
      const answer = await fetch('rating', {
        method: 'POST', body: JSON.stringify(row), headers: { 'Content-Type': 'application/json' },
      });
      say(answer.ok ? '' : (await answer.json()).message);
    }).catch(() => say('The server does not answer: this rating is not saved.'));
  }

  const entryOf = (scan) => memory.get(scan.scan)
    || { rating: '', muscles: [], comment: '', rater: '', rated_at: '' };
  const ratingOf = (scan) => entryOf(scan).rating;

  function change(scan, part) {
    save(scan, {
      ...entryOf(scan), ...part, rater: $('rater').value.trim(), rated_at: new Date().toISOString(),
    });
  }

  function progress() {
    const count = { pass: 0, artefact: 0, fail: 0, '': 0 };
    for (const scan of scans) count[ratingOf(scan)] += 1;
    const rated = scans.length - count[''];
    $('progress').max = scans.length || 1;
    $('progress').value = rated;
    $('progress-text').textContent = `${rated} of ${scans.length} rated: ${count.pass} pass, `
      + `${count.artefact} artefact, ${count.fail} fail`;
  }

  // The wall. Red scans come first, then those of which the network was least sure.
  const urgency = (scan) => ({ unusable: 0, failed: 4 }[scan.light] ?? 2) + (scan.sure ?? 1);
  const SORTS = {
    urgency: { title: 'Red scans, then least sure', get: urgency },
    sure: { title: 'Least predicted Dice', get: (scan) => scan.sure, shown: true },
    name: { title: 'Name', get: (scan) => scan.scan },
    score: { title: 'Outlier score (largest robust z)', get: (scan) => scan.score, shown: true },
    light: { title: 'Result', get: (scan) => LIGHTS[scan.light] },
    rating: { title: 'Rating', get: (scan) => ORDER[ratingOf(scan)] },
  };
  for (const [name, title] of [['site', 'Site'], ['sex', 'Sex'], ['age', 'Age'], ['bmi', 'Body mass index']]) {
    if (scans.some((scan) => scan[name] !== null)) SORTS[name] = { title, get: (scan) => scan[name], shown: true };
  }
  data.measures.forEach((measure, k) => data.muscles.forEach((muscle, j) => {
    const place = k * data.muscles.length + j;
    SORTS[`m${place}`] = {
      title: `${muscle.name}: ${measure}`, group: measure, get: (scan) => scan.values[place], shown: true,
    };
  }));
  data.quality.forEach((title, k) => {
    SORTS[`q${k}`] = { title, group: 'Image quality', get: (scan) => scan.quality[k], shown: true };
  });

  function fillSort() {
    const groups = new Map();
    for (const [key, sort] of Object.entries(SORTS)) {
      const option = new Option(sort.title, key);
      if (!sort.group) { $('sort').append(option); continue; }
      if (!groups.has(sort.group)) {
        const group = document.createElement('optgroup');
        group.label = sort.group;
        groups.set(sort.group, group);
        $('sort').append(group);
      }
      groups.get(sort.group).append(option);
    }
  }

  function choose() {
    shown = scans.filter((scan) => fits(scan)
      && (!$('filter-outlier').checked || scan.score > data.outlier_z));
    shown.sort(compare(SORTS[$('sort').value].get, $('descending').checked ? -1 : 1));
    page = Math.min(page, Math.max(Math.ceil(shown.length / PAGE) - 1, 0));
    draw();
  }

  function tile(scan, place) {
    const button = element('button', 'tile');
    button.type = 'button';
    button.dataset.scan = scan.scan;
    if (scan.thumbnail) {
      const image = element('img');
      image.loading = 'lazy';
      image.alt = '';
      image.src = scan.thumbnail;
      button.append(image);
    } else {
      button.append(element('span', 'no-picture', 'no picture'));
    }
    button.append(element('span', 'tile-name', scan.scan));
    const line = element('span', 'tile-line');
    line.append(element('span', `light ${scan.light}`, scan.word));
    const rating = ratingOf(scan);
    line.append(element('span', `badge ${rating}`, SYMBOL[rating] || 'not rated'));
    if (scan.labels === 'person') line.append(element('span', 'badge', 'drawn or corrected by hand'));
    const sort = SORTS[$('sort').value];
    if (sort.shown) line.append(element('span', '', format(sort.get(scan))));
    button.append(line);
    button.addEventListener('click', () => open(shown, place));
    const item = element('li');
    item.append(button);
    return item;
  }

  function draw() {
    const start = page * PAGE;
    const part = shown.slice(start, start + PAGE);
    $('wall').replaceChildren(...part.map((scan, place) => tile(scan, start + place)));
    $('page-text').textContent = part.length
      ? `${start + 1} to ${start + part.length} of ${shown.length}` : 'No scan fits the filters.';
    $('page-previous').disabled = page === 0;
    $('page-next').disabled = start + PAGE >= shown.length;
  }

  // One scan.
  function open(list, place) {
    queue = [...list];
    at = place;
    if (!$('viewer').open) $('viewer').showModal();
    show();
  }

  function picture(image, address) {
    image.hidden = !address;
    if (address) image.src = address; else image.removeAttribute('src');
  }

  function show() {
    const scan = queue[at];
    $('viewer-title').textContent = scan.scan;
    $('viewer-light').className = `light ${scan.light}`;
    $('viewer-light').textContent = scan.word;
    $('viewer-place').textContent = `${at + 1} of ${queue.length}`;
    $('viewer-reason').textContent = scan.reason;
    $('viewer-page').href = scan.page;
    if (served) {
      const query = new URLSearchParams({ rater: $('rater').value.trim() });
      // A joined scan is corrected in its parts.
      const joined = scan.edited[0] !== scan.scan;
      $('viewer-edit').replaceChildren(...scan.edited.flatMap((name) => {
        const link = element('a');
        link.textContent = `Correct the outlines${joined ? ` of ${name}` : ''}`;
        link.href = `edit/${name}?${query}`;
        return [link, ' '];
      }));
    }
    picture($('viewer-bare'), scan.bare);
    picture($('viewer-outlined'), scan.outlined);
    picture($('viewer-extent'), scan.extent);
    $('viewer-frame').hidden = !scan.outlined && !scan.bare;
    $('viewer-empty').hidden = !$('viewer-frame').hidden;
    $('muscles').replaceChildren(...scan.muscles.map((name) => {
      const label = element('label');
      const box = element('input');
      box.type = 'checkbox';
      box.value = name;
      const swatch = element('span', 'swatch');
      swatch.style.background = colours.get(name);
      label.append(box, ' ', swatch, name);
      return label;
    }));
    fill();
    $('viewer-title').focus();
    const following = queue[at + 1];
    if (following && following.outlined) new Image().src = following.outlined;
  }

  function fill() {
    const entry = entryOf(queue[at]);
    for (const button of document.querySelectorAll('.rate')) {
      button.setAttribute('aria-pressed', String(button.dataset.rating === entry.rating));
    }
    for (const box of $('muscles').querySelectorAll('input')) {
      box.checked = entry.muscles.includes(box.value);
    }
    $('comment').value = entry.comment;
  }

  function rate(rating) {
    change(queue[at], { rating });
    fill();
    if ($('follow').checked) nextUnrated();
  }

  function go(step) {
    at = Math.min(Math.max(at + step, 0), queue.length - 1);
    show();
  }

  function nextUnrated() {
    const order = [...queue.keys()].map((k) => (at + 1 + k) % queue.length);
    const place = order.find((k) => !ratingOf(queue[k]));
    if (place === undefined) { $('viewer-place').textContent = 'All of these are rated.'; return; }
    at = place;
    show();
  }

  function toggleOverlay() {
    const on = $('viewer-layers').classList.toggle('bare');
    $('overlay').setAttribute('aria-pressed', String(!on));
  }

  const KEYS = {
    p: () => rate('pass'),
    f: () => rate('fail'),
    a: () => rate('artefact'),
    0: () => { save(queue[at], { rating: '', muscles: [], comment: '', rater: '', rated_at: '' }); fill(); },
    o: toggleOverlay,
    u: nextUnrated,
    arrowright: () => go(1),
    j: () => go(1),
    arrowleft: () => go(-1),
    k: () => go(-1),
    m: () => { const box = $('muscles').querySelector('input'); if (box) box.focus(); },
    c: () => $('comment').focus(),
  };

  function onKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target === $('comment')) {
      if (event.key === 'Escape') { event.preventDefault(); $('viewer-title').focus(); }
      return;
    }
    const action = KEYS[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  }

  // Files.
  const cell = (text) => text.replace(/[\t\r\n]+/g, ' ').trim() || 'n/a';

  function collect() {
    return scans.filter(ratingOf).map((scan) => {
      const entry = entryOf(scan);
      const rater = entry.rater || $('rater').value.trim();
      return { scan: scan.scan, segmentation: scan.segmentation, ...entry, rater };
    });
  }

  function download(text, kind, type) {
    const link = document.createElement('a');
    const name = $('rater').value.trim().replace(/[^A-Za-z0-9]+/g, '');
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = `ratings${name ? `_${name}` : ''}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // Marks and comments count with a rating alone.
  function unrated() {
    const count = scans.filter((scan) => memory.has(scan.scan) && !ratingOf(scan)).length;
    return count ? ` Without a rating, marks and comments are not ${served ? 'saved' : 'exported'}: rate ${count} more.` : '';
  }

  function exportAs(kind) {
    const ratings = collect();
    if (!ratings.length) { say(`There is no rating to export yet.${unrated()}`); return; }
    if (ratings.some((rating) => !rating.rater)) {
      say('Say who rates before you export.');
      $('rater').focus();
      return;
    }
    if (kind === 'json') {
      const content = { format: data.format, ratings };
      download(`${JSON.stringify(content, null, 2)}\n`, kind, 'application/json');
    } else {
      const rows = ratings.map((rating) => COLUMNS.map((name) => (
        cell(name === 'muscles' ? rating.muscles.join(data.separator) : rating[name]))));
      const lines = [COLUMNS, ...rows].map((cells) => `${cells.join('\t')}\n`);
      download(lines.join(''), kind, 'text/tab-separated-values');
    }
    say(`${ratings.length} ratings exported.${unrated()}`);
  }

  function parse(text) {
    if (text.trimStart().startsWith('{')) {
      const content = JSON.parse(text);
      if (content.format !== data.format || !Array.isArray(content.ratings)) throw new Error();
      return content.ratings;
    }
    const lines = text.split(/\r?\n/).filter(Boolean).map((line) => line.split('\t'));
    const header = lines.shift() || [];
    if (!COLUMNS.every((name) => header.includes(name))) throw new Error();
    return lines.map((cells) => {
      if (cells.length !== header.length) return null;
      const value = (name) => {
        const found = cells[header.indexOf(name)];
        return found === 'n/a' && name !== 'segmentation' ? '' : found;
      };
      const row = Object.fromEntries(COLUMNS.map((name) => [name, value(name)]));
      row.muscles = row.muscles.split(data.separator).filter(Boolean);
      return row;
    });
  }

  async function importFile(file) {
    let rows;
    try {
      rows = parse((await file.text()).replace(/^\uFEFF/, ''));
    } catch {
      say(`${file.name} is not a rating file: import one that was exported from a review page.`);
      return;
    }
    const named = rows.map((row) => row && row.scan).filter(isText);
    if (new Set(named).size < named.length) {
      say(`${file.name} rates a scan more than once: import the file of one rater.`);
      return;
    }
    const left = { unknown: 0, outdated: 0, broken: 0, older: 0, other: 0 };
    let taken = 0;
    for (const row of rows) {
      const scan = row && byName.get(row.scan);
      if (!row || !row.rating || !scan) {
        left[row && row.rating ? 'unknown' : 'broken'] += 1;
      } else if (row.segmentation !== scan.segmentation) {
        left.outdated += 1;
      } else if (!valid(row, scan)) {
        left.broken += 1;
      } else if (row.rater && row.rater !== (served ? $('rater').value.trim() : entryOf(scan).rater || row.rater)) {
        // The server would keep it as a rating of this rater; here it would replace one.
        left.other += 1;
      } else if (entryOf(scan).rated_at > row.rated_at) {
        left.older += 1;
      } else {
        const { rating, muscles, comment, rater, rated_at } = row;
        save(scan, { rating, muscles, comment, rater, rated_at });
        taken += 1;
      }
    }
    const words = {
      unknown: 'of scans that are not here', outdated: 'of another segmentation',
      broken: 'broken', older: 'older than yours', other: 'of another rater',
    };
    const rest = Object.keys(left).filter((key) => left[key])
      .map((key) => `${left[key]} ${words[key]}`).join(', ');
    const none = !taken && left.unknown + left.outdated > 0
      ? ' The file seems to belong to another dataset.' : '';
    say(`${taken} ratings imported${rest ? `, left out: ${rest}` : ''}.${none}`);
    choose();
  }

  // Wiring.
  load();
  fillSort();
  const fits = filters($('filters'), ['series', 'site', 'sex', 'light', 'flag', 'labels', 'rating'],
    ratingOf, () => { page = 0; choose(); });
  try {
    $('rater').value = (served && served.rater) || localStorage.getItem(RATER) || '';
    $('follow').checked = localStorage.getItem(FOLLOW) === 'yes';
  } catch { /* nothing is kept */ }
  if (served && served.readonly) say('The output folder is read-only: export your ratings before you leave.');
  if (served && !served.rater && $('rater').value) location.search = new URLSearchParams({ rater: $('rater').value });
  $('follow').addEventListener('change', () => {
    try { localStorage.setItem(FOLLOW, $('follow').checked ? 'yes' : 'no'); } catch { /* nothing is kept */ }
  });
  $('rater').addEventListener('change', () => {
    try { localStorage.setItem(RATER, $('rater').value.trim()); } catch { /* nothing is kept */ }
    if (served) location.search = new URLSearchParams({ rater: $('rater').value.trim() });
  });
  for (const id of ['sort', 'descending', 'filter-outlier']) {
    $(id).addEventListener('change', () => { page = 0; choose(); });
  }
  $('page-previous').addEventListener('click', () => { page -= 1; draw(); });
  $('page-next').addEventListener('click', () => { page += 1; draw(); });
  $('start').addEventListener('click', () => {
    const place = shown.findIndex((scan) => !ratingOf(scan));
    if (place < 0) say('All scans that fit the filters are rated.'); else open(shown, place);
  });
  $('export-tsv').addEventListener('click', () => exportAs('tsv'));
  $('export-json').addEventListener('click', () => exportAs('json'));
  $('import').addEventListener('click', () => $('import-file').click());
  $('import-file').addEventListener('change', async () => {
    const [file] = $('import-file').files;
    if (file) await importFile(file);
    $('import-file').value = '';
  });
  $('viewer').addEventListener('keydown', onKey);
  $('viewer').addEventListener('close', () => {
    choose();
    const told = unrated();
    if (told || $('message').textContent === remark) say(told);
    remark = told;
    const name = queue[at].scan;
    const button = [...document.querySelectorAll('.tile')].find((each) => each.dataset.scan === name);
    if (button) button.focus();
  });
  $('close').addEventListener('click', () => $('viewer').close());
  $('previous').addEventListener('click', () => go(-1));
  $('next').addEventListener('click', () => go(1));
  $('next-unrated').addEventListener('click', nextUnrated);
  $('overlay').addEventListener('click', toggleOverlay);
  $('clear').addEventListener('click', KEYS[0]);
  $('form').addEventListener('submit', (event) => event.preventDefault());
  for (const button of document.querySelectorAll('.rate')) {
    button.addEventListener('click', () => rate(button.dataset.rating));
  }
  $('muscles').addEventListener('change', () => {
    const boxes = [...$('muscles').querySelectorAll('input:checked')];
    change(queue[at], { muscles: boxes.map((box) => box.value) });
  });
  $('comment').addEventListener('input', () => change(queue[at], { comment: $('comment').value }));
  progress();
  choose();
})();
