// The cohort page: distributions, values, outliers, image quality, completeness, all filtered.
(() => {
  const { $, SEXES, data, element, filters, format, link, order, scans, table } = Scans;
  //: Above this many values a strip shows its box and the far values only.
  const MAX_DOTS = 300;
  //: Fewer values than this have neither a box nor control limits.
  const MIN_VALUES = 5;
  const SHAPES = ['circle', 'square', 'triangle', 'diamond'];
  const COLOURS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9'];
  const SYMBOLS = { done: '✓', failed: '✗', excluded: '○', missing: '–' };
  const nMuscles = data.muscles.length;
  // Width of the charts, read before anything is drawn: reading it later would cost a layout.
  const measured = () => Math.max(Math.min($('count').clientWidth, 900), 300);
  let room = measured();
  for (const scan of scans) scan.counted = new Set(scan.counts);

  function svg(tag, attributes, text) {
    const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }

  const valueOf = (scan, measure, muscle) => scan.values[measure * nMuscles + muscle];

  // As numpy.percentile.
  function quantile(sorted, share) {
    const at = share * (sorted.length - 1);
    const low = Math.floor(at);
    return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
  }

  function ticks(lowest, highest, count = 5) {
    const span = highest - lowest || Math.abs(highest) || 1;
    const power = 10 ** Math.floor(Math.log10(span / count));
    const step = power * [1, 2, 2.5, 5, 10].find((factor) => power * factor >= (span / count) * 0.999);
    const first = Math.floor(lowest / step + 1e-9);
    const last = Math.max(Math.ceil(highest / step - 1e-9), first + 1);
    return Array.from({ length: last - first + 1 }, (_, k) => Number(((first + k) * step).toPrecision(10)));
  }

  function wrap(text, width) {
    const lines = [''];
    for (const word of text.split(' ')) {
      const line = lines[lines.length - 1];
      if (line && line.length + word.length >= width) lines.push(word);
      else lines[lines.length - 1] = line ? `${line} ${word}` : word;
    }
    return lines;
  }

  // A frame with a grid for both kinds of chart; its figures are pixels of the page.
  function frame(root, title, width, height, summary) {
    const picture = svg('svg', { class: 'chart fitted', viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': title });
    picture.append(svg('desc', {}, summary));
    picture.addEventListener('keydown', (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const dots = [...picture.querySelectorAll('a')];
      const at = dots.indexOf(document.activeElement);
      if (!step || at < 0) return;
      event.preventDefault();
      const next = dots[Math.min(Math.max(at + step, 0), dots.length - 1)];
      dots[at].tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
    const figure = element('figure');
    figure.append(element('figcaption', '', title), picture);
    root.replaceChildren(figure);
    return picture;
  }

  // One stop of the tabulator for each chart; the arrow keys go from dot to dot.
  function dot(picture, scan, text, x, y, colour, shape = 'circle') {
    const anchor = svg('a', { href: scan.page, 'aria-label': text, tabindex: picture.querySelector('a') ? -1 : 0 });
    const place = { fill: colour, class: 'dot' };
    const mark = {
      circle: () => svg('circle', { ...place, cx: x, cy: y, r: 3.5 }),
      square: () => svg('rect', { ...place, x: x - 3.2, y: y - 3.2, width: 6.4, height: 6.4 }),
      triangle: () => svg('path', { ...place, d: `M${x} ${y - 4.2}l4.2 7.4h-8.4z` }),
      diamond: () => svg('path', { ...place, d: `M${x} ${y - 4.6}l4.2 4.6l-4.2 4.6l-4.2 -4.6z` }),
    }[shape]();
    mark.append(svg('title', {}, text));
    anchor.append(mark);
    picture.append(anchor);
  }

  // Distributions.
  // Each with its names in order, as far as there is one; all else goes by the alphabet.
  const GROUPS = {
    '': { title: 'nothing', of: () => '', names: [] },
    sex: { title: 'sex', of: (scan) => SEXES[scan.sex] || 'n/a', names: [], column: data.tests.sex && { name: 'sex' } },
    site: { title: 'site', of: (scan) => scan.site || 'n/a', names: [], column: data.tests.site && { name: 'site' } },
    session: {
      title: 'session',
      of: (scan) => (scan.scan.match(/_(ses-[^_]+)/) || [])[1] || 'n/a',
      names: data.sessions,
    },
  };
  data.columns.forEach((column, k) => {
    const known = scans.map((scan) => scan.columns[k]).filter((value) => value !== null);
    const group = { title: column.name, of: (scan) => scan.columns[k] ?? 'n/a', names: [...column.levels, 'n/a'], column };
    if (column.kind === 'number') {
      // A number is split at its thirds.
      known.sort((a, b) => a - b);
      const [low, high] = [1 / 3, 2 / 3].map((share) => Number(quantile(known, share).toPrecision(3)));
      const names = low < high ? [`up to ${low}`, `${low} to ${high}`, `above ${high}`] : [`up to ${low}`, `above ${low}`];
      group.names = [...names, 'n/a'];
      group.of = ({ columns: { [k]: value } }) => (value === null ? 'n/a'
        : names[value <= low ? 0 : low < high && value <= high ? 1 : names.length - 1]);
    }
    GROUPS[`column-${k}`] = group;
  });

  function namesOf({ of, names }, members) {
    const place = (name) => (names.includes(name) ? names.indexOf(name) : -1);
    return [...new Set(members.map(of))].sort(order).sort((a, b) => place(a) - place(b));
  }

  // Colour and shape of a scan by the group it is in.
  function colours(by) {
    const group = GROUPS[by];
    const names = namesOf(group, scans);
    const look = (name) => {
      if (name === 'n/a' && names.length > 1) return ['#999999', 'circle'];
      const k = names.indexOf(name);
      // Colour and shape repeat together after 12 groups, so that the next 12 have the next shape.
      return k < 24 ? [COLOURS[k % 6], SHAPES[(k + Math.floor(k / 12)) % 4]] : ['#999999', 'square'];
    };
    return { names, look, of: (scan) => look(group.of(scan)) };
  }

  function legend(names, look) {
    const list = element('ul', 'legend');
    for (const name of names) {
      const item = element('li');
      const key = svg('svg', { viewBox: '-6 -6 12 12', width: 14, height: 14, class: 'chart key', 'aria-hidden': 'true' });
      dot(key, { page: '' }, name, 0, 0, ...look(name));
      key.replaceChildren(key.querySelector('.dot'));
      item.append(key, ` ${name}`);
      list.append(item);
    }
    return list;
  }

  function strips(members, measure, group) {
    const { of } = GROUPS[group];
    const found = [];
    const groups = namesOf(GROUPS[group], members);
    const there = new Set(inSeries().flatMap((scan) => scan.rows));
    [...there].sort((a, b) => a - b).forEach((muscle) => {
      for (const name of groups) {
        const dots = members.filter((scan) => of(scan) === name && scan.counted.has(muscle)
          && valueOf(scan, measure, muscle) !== null);
        const sorted = dots.map((scan) => valueOf(scan, measure, muscle)).sort((a, b) => a - b);
        found.push({ ...data.muscles[muscle], place: found.length, index: muscle, group: name, dots, sorted });
      }
    });
    return found;
  }

  function drawStrips(root, title, found, measure) {
    const width = room;
    const narrow = width < 560;
    const grouped = found.some((strip) => strip.group);
    const widest = Math.max(...found.map((strip) => strip.group.length));
    const most = narrow ? 11 : 22;
    const [nameWidth, sideWidth] = [narrow ? 0 : 170, grouped ? 26 + 7.4 * Math.min(widest + 2, most) : 26];
    const shorter = (text) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
    const colour = $('colour').value ? colours($('colour').value) : null;
    const left = nameWidth + sideWidth;
    const all = found.flatMap((strip) => strip.sorted);
    const marks = ticks(Math.min(0, ...ends(all)), Math.max(0, ...ends(all)));
    const scale = (width - left - 76) / (marks[marks.length - 1] - marks[0]);
    const x = (value) => Number((left + (value - marks[0]) * scale).toFixed(1));
    const parts = [];
    let y = 8;
    let previous = null;
    for (const strip of found) {
      if (strip.muscle !== previous) {
        y += previous === null ? 0 : 11;
        if (narrow) { parts.push(svg('text', { x: 0, y: y + 10 }, strip.muscle)); y += 16; }
        else wrap(strip.muscle, 24).forEach((line, k) => parts.push(svg('text', { x: 0, y: y + 14 + 13 * k }, line)));
        previous = strip.muscle;
      }
      strip.y = y;
      y += 22;
    }
    const summary = found.map((strip) => `${strip.name} ${strip.group} median ${strip.sorted.length
      ? format(quantile(strip.sorted, 0.5)) : 'n/a'} of ${strip.sorted.length}`).join('; ');
    const picture = frame(root, title, width, y + 30, summary);
    for (const mark of marks) {
      picture.append(
        svg('line', { class: 'grid', x1: x(mark), x2: x(mark), y1: 4, y2: y + 8 }),
        svg('text', { class: 'soft', x: x(mark), y: y + 24, 'text-anchor': 'middle' }, mark),
      );
    }
    picture.append(...parts);
    for (const strip of found) {
      const side = strip.side && strip.side !== 'unsided' ? strip.side[0].toUpperCase() : '';
      const name = svg('text', { class: 'soft', x: left - 8, y: strip.y + 15, 'text-anchor': 'end' }, `${side} ${shorter(strip.group)}`.trim());
      if (strip.group.length > most) name.append(svg('title', {}, strip.group));
      picture.append(name);
      picture.append(svg('text', { class: 'soft count', x: width - 4, y: strip.y + 15, 'text-anchor': 'end' }, strip.sorted.length ? `n = ${strip.sorted.length}` : 'no value'));
      if (!strip.sorted.length) continue;
      const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => quantile(strip.sorted, share));
      const near = strip.sorted.filter((v) => v >= low - 1.5 * (high - low) && v <= high + 1.5 * (high - low));
      const [from, to] = ends(near);
      const boxed = strip.sorted.length >= MIN_VALUES;
      if (boxed) picture.append(svg('line', { class: 'whisker', x1: x(from), x2: x(to), y1: strip.y + 11, y2: strip.y + 11 }));
      strip.dots.forEach((scan, k) => {
        const value = valueOf(scan, measure, strip.index);
        if (strip.dots.length > MAX_DOTS && value >= from && value <= to) return;
        dot(picture, scan, `${scan.scan}: ${strip.name} ${format(value)}`, x(value), strip.y + 5 + (k % 5) * 3, ...(colour ? colour.of(scan) : [strip.colour]));
      });
      if (boxed) picture.append(
        svg('rect', { class: 'box', x: x(low), y: strip.y + 3, width: (x(high) - x(low)).toFixed(1), height: 16 }),
        svg('line', { class: 'median', x1: x(middle), x2: x(middle), y1: strip.y + 2, y2: strip.y + 20 }),
      );
    }
    if (colour) root.append(legend(colour.names, colour.look));
  }

  // What the group level found out about the column by which the chart is split or coloured.
  function showTest(measure) {
    const chosen = [$('split').value, $('colour').value].map((name) => GROUPS[name].column).find(Boolean);
    $('tested').hidden = !chosen;
    if (!chosen) return;
    const said = ((data.tests[chosen.name] || {})[data.series[seriesOf()]] || {})[data.measure_names[measure]];
    $('tested').textContent = said
      ? `${said} (Of all scans that count, whatever the filters say.)`
      : `${chosen.name} was not tested with this measure. Run the group level with --group '${chosen.name}'.`;
  }

  // Spread arguments would overflow the stack for large cohorts.
  function ends(values) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
    return values.length ? [low, high] : [0, 0];
  }

  const showSummary = table($('summary'), 'Median, quartiles and range of each muscle', [
    { title: 'Muscle', get: (strip) => strip.place, show: (strip) => document.createTextNode(`${strip.name} ${strip.group}`.trim()) },
    { title: 'Values', number: true, get: (strip) => strip.sorted.length },
    { title: 'Median', number: true, get: (strip) => (strip.sorted.length ? quantile(strip.sorted, 0.5) : null) },
    ...[['Quartiles', 0.25, 0.75], ['Range', 0, 1]].map(([title, low, high]) => ({
      title,
      number: true,
      get: (strip) => (strip.sorted.length ? quantile(strip.sorted, high) - quantile(strip.sorted, low) : null),
      show: (strip) => document.createTextNode(strip.sorted.length
        ? `${format(quantile(strip.sorted, low))} to ${format(quantile(strip.sorted, high))}` : 'n/a'),
    })),
  ]);

  // Columns that say who a scan is of, as far as anybody has them.
  const toPage = (scan) => link(scan.scan, scan.page);
  const WHO = [
    { title: 'Scan', get: (scan) => scan.scan, show: toPage },
    ...[['Site', 'site'], ['Sex', 'sex'], ['Age', 'age'], ['BMI', 'bmi'], ['Rating', 'verdict']]
      .filter(([, name]) => scans.some((scan) => scan[name]))
      .map(([title, name]) => ({
        title, number: ['age', 'bmi'].includes(name), get: (scan) => scan[name] || null,
      })),
    ...data.columns.map((column, k) => ({
      title: column.name, number: column.kind === 'number', get: (scan) => scan.columns[k],
    })),
  ];

  function showValues(members, measure) {
    const muscles = [...new Set(inSeries().flatMap((scan) => scan.rows))].sort((a, b) => a - b);
    table($('values'), `${data.measures[measure]} of every scan`, [
      ...WHO,
      { title: 'Outlier score', number: true, get: (scan) => scan.score },
      ...muscles.map((muscle) => ({
        title: data.muscles[muscle].name,
        number: true,
        get: (scan) => valueOf(scan, measure, muscle),
        show: (scan) => {
          const text = format(valueOf(scan, measure, muscle));
          return document.createTextNode(scan.counted.has(muscle) || text === 'n/a' ? text : `(${text})`);
        },
      })),
    ])(members);
  }

  // Outliers, in the order of the farthest.
  const outliers = data.outliers.map(([scan, muscle, measure, value, z], place) => (
    { place, scan: scans[scan], muscle, measure, value, z }));
  const showOutliers = table($('outliers'), 'Outliers', [
    { title: 'Scan', get: (row) => row.scan.scan, show: (row) => toPage(row.scan) },
    { title: 'Muscle', get: (row) => row.muscle || 'image' },
    { title: 'Measure', get: (row) => row.measure },
    { title: 'Value', number: true, get: (row) => row.value },
    { title: 'Robust z', number: true, get: (row) => Math.abs(row.z), show: (row) => document.createTextNode(`${row.z > 0 ? '+' : ''}${row.z.toFixed(1)}`) },
  ], 4, true);

  // Image quality.
  const ACROSS = {
    place: 'order of the scans', age: 'age', bmi: 'body mass index',
  };

  function drawQuality(members, figure, across) {
    const root = $('trend');
    const known = members.filter((scan) => scan.quality[figure] !== null && scan[across] !== null);
    known.sort((a, b) => (across === 'place' ? 0 : a[across] - b[across]) || order(a.scan, b.scan));
    const points = known.map((scan, k) => ({
      scan, x: across === 'place' ? k + 1 : scan[across], y: scan.quality[figure],
    }));
    const title = `${data.quality[figure]}, by ${ACROSS[across]}`;
    if (!points.length) { root.replaceChildren(element('p', '', 'No scan has this figure.')); return; }
    const { names, look, of } = colours($('colour').value || 'site');
    const width = room;
    const height = 300;
    const [left, bottom] = [64, height - 34];
    const values = points.map((point) => point.y).sort((a, b) => a - b);
    const middle = quantile(values, 0.5);
    const reach = 3 * 1.4826 * quantile(values.map((v) => Math.abs(v - middle)).sort((a, b) => a - b), 0.5);
    const limits = values.length >= MIN_VALUES ? [middle - reach, middle + reach] : [];
    const rows = ticks(...ends([...values, ...limits]));
    const columns = ticks(...ends(points.map((point) => point.x)));
    const [first, last] = ends(points.map((point) => point.x));
    const x = (v) => Number((left + 6 + ((v - first) / (last - first || 1)) * (width - left - 24)).toFixed(1));
    const y = (v) => Number((bottom - ((v - rows[0]) / (rows[rows.length - 1] - rows[0])) * (bottom - 10)).toFixed(1));
    const picture = frame(root, title, width, height, `Median ${format(middle)} of ${points.length} scans`
      + (limits.length ? `, control limits ${format(limits[0])} to ${format(limits[1])}` : ''));
    for (const mark of rows) {
      picture.append(svg('line', { class: 'grid', x1: left, x2: width - 12, y1: y(mark), y2: y(mark) }),
        svg('text', { class: 'soft', x: left - 8, y: y(mark) + 4, 'text-anchor': 'end' }, mark));
    }
    for (const mark of columns.filter((each) => each >= first && each <= last
      && (across !== 'place' || Number.isInteger(each)))) {
      picture.append(svg('text', { class: 'soft', x: x(mark), y: bottom + 20, 'text-anchor': 'middle' }, mark));
    }
    for (const limit of limits) {
      picture.append(svg('line', { class: 'limit', x1: left, x2: width - 12, y1: y(limit), y2: y(limit) }));
    }
    for (const point of points) {
      dot(picture, point.scan, `${point.scan.scan}: ${format(point.y)}`, x(point.x), y(point.y), ...of(point.scan));
    }
    const half = Math.max(3, Math.floor(points.length / 20));
    if (points.length > 2 * half) {
      const path = points.map((point, k) => {
        const near = points.slice(Math.max(k - half, 0), k + half + 1).map((each) => each.y).sort((a, b) => a - b);
        return `${x(point.x)} ${y(quantile(near, 0.5))}`;
      });
      picture.append(svg('path', { class: 'trend', d: `M${path.join('L')}` }));
    }
    if (names.length > 1) root.append(legend(names, look));
  }

  // Completeness.
  const { statuses, columns: kinds } = data.completeness;
  const people = data.completeness.rows.map((row, place) => ({
    ...row, place, lacking: row.cells.flat().filter((status) => statuses[status] !== 'done').length,
  }));

  function status(cells) {
    const box = element('span', 'statuses');
    for (const place of [...new Set(cells)]) {
      const count = cells.filter((each) => each === place).length;
      box.append(element('span', `status ${statuses[place]}`,
        `${SYMBOLS[statuses[place]]} ${statuses[place]}${count > 1 ? ` ${count}` : ''}`));
    }
    if (!cells.length) box.textContent = ' ';
    return box;
  }

  const worst = (cells) => Math.max(-1, ...cells);
  const showMatrix = table($('matrix'), 'Scans of each participant', [
    { title: 'Participant', get: (row) => row.name, show: (row) => row.page ? link(row.name, row.page) : document.createTextNode(row.name) },
    ...kinds.map((kind, k) => ({
      title: kind || 'scan', get: (row) => worst(row.cells[k]), show: (row) => status(row.cells[k]),
    })),
    { title: 'Not done', number: true, get: (row) => row.lacking },
  ], kinds.length + 1, true);

  function showTotals(rows) {
    const total = kinds.map((kind, k) => ({
      place: k,
      kind,
      count: statuses.map((_, s) => rows.reduce((sum, row) => sum + row.cells[k].filter((c) => c === s).length, 0)),
    }));
    table($('totals'), 'Scans of each kind', [
      { title: 'Session and kind of scan', get: (row) => row.place, show: (row) => document.createTextNode(row.kind || 'scan') },
      ...statuses.map((name, s) => ({ title: name, number: true, get: (row) => row.count[s] })),
    ])(total);
  }

  const URGENCY = { failed: 0, unusable: 1, check: 2, ok: 3 };
  const showRemarks = table($('remarks'), 'Scans to inspect', [
    { title: 'Scan', get: (scan) => scan.scan, show: toPage },
    { title: 'Result', get: (scan) => URGENCY[scan.light], show: (scan) => element('span', `light ${scan.light}`, scan.word) },
    { title: 'Least predicted Dice', number: true, get: (scan) => scan.sure },
    { title: 'Reason and remedy', kind: 'prose', get: (scan) => `${scan.reason} ${scan.remedy}` },
  ], 1);

  // Wiring.
  const seriesOf = () => Number($('series').value);
  const inSeries = () => scans.filter((scan) => scan.series === seriesOf());

  function fill(select, entries) {
    for (const [value, text] of entries) $(select).append(new Option(text, value));
  }

  function fillMeasures() {
    const members = inSeries();
    const has = (measure) => members.some((scan) => scan.rows.some((row) => valueOf(scan, measure, row) !== null));
    const kept = $('measure').value;
    $('measure').replaceChildren();
    fill('measure', data.measures.map((name, k) => [k, name]).filter(([k]) => has(k)));
    if ([...$('measure').options].some((option) => option.value === kept)) $('measure').value = kept;
  }

  function drawCharts(members) {
    const measure = Number($('measure').value);
    const found = strips(members, measure, $('split').value);
    $('distribution').hidden = !$('measure').value;
    if ($('measure').value) drawStrips($('distribution'), data.measures[measure], found, measure);
    showSummary(found);
    showTest(measure);
    if (data.quality.length) drawQuality(members, Number($('figure').value), $('across').value);
    return measure;
  }

  function draw() {
    const fitting = scans.filter(fits);
    const members = fitting.filter((scan) => scan.series === seriesOf());
    const measure = drawCharts(members);
    $('count').textContent = `${members.length} of ${inSeries().length} scans of this series`;
    if ($('measure').value) showValues(members, measure);
    const there = new Set(members);
    showOutliers(outliers.filter((row) => there.has(row.scan)));
    const names = new Set(fitting.map((scan) => `sub-${scan.participant}`));
    const everybody = fitting.length === scans.length;
    const rows = people.filter((row) => everybody || names.has(row.name));
    showTotals(rows);
    showMatrix(rows);
    showRemarks(fitting.filter((scan) => scan.light !== 'ok'));
  }

  const bySize = data.series.map((name, k) => [k, name, scans.filter((scan) => scan.series === k && scan.rows.length).length]);
  fill('series', bySize.filter(([, , count]) => count).sort((a, b) => b[2] - a[2])
    .map(([k, name, count]) => [k, `${name} (${count})`]));
  const choices = Object.entries(GROUPS).filter(([name, { of }]) => !name || new Set(scans.map(of)).size > 1);
  fill('split', choices.map(([name, { title }]) => [name, title]));
  fill('colour', choices.map(([name, { title }]) => [name, name ? title : 'muscle']));
  fill('figure', data.quality.map((name, k) => [k, name]));
  fill('across', Object.entries(ACROSS)
    .filter(([name]) => name === 'place' || scans.some((scan) => scan[name] !== null)));
  const fits = filters($('filters'), ['site', 'sex', 'light', 'flag', 'labels', 'used',
    ...(scans.some((scan) => scan.verdict) ? ['rating'] : [])], (scan) => scan.verdict, draw);
  $('quality-part').hidden = !data.quality.length;
  $('series').addEventListener('change', () => { fillMeasures(); draw(); });
  $('measure').addEventListener('change', draw);
  for (const id of ['split', 'colour', 'figure', 'across']) {
    $(id).addEventListener('change', () => drawCharts(scans.filter(fits).filter((scan) => scan.series === seriesOf())));
  }
  window.addEventListener('resize', () => {
    if (measured() === room) return;
    room = measured();
    drawCharts(scans.filter(fits).filter((scan) => scan.series === seriesOf()));
  });
  fillMeasures();
  draw();
})();
