// The editor of one scan: this file fills the page and connects its controls with the other parts.
import { $, desk, element, enable, facts, keep, kept, press, rater, sagittal, say } from './editor_page.js';
import { attach, blend, colours, goTo, nv, overlay, scroll, show, sliceOf, slices, windowing } from './editor_picture.js';
import { choose, interpolate, load, otherSide, presentLabels, rename, take, undo } from './editor_drawing.js';
import { listStarts, measure, next, progress, rate, rated, save, withdraw } from './editor_saving.js';

const TYPING_MS = 800;
// Vertebrae have numbers that people know; those of muscles differ between models.
const numberOf = (k) => (sagittal ? facts.labels[k].index : k + 1);

function fill() {
  facts.labels.forEach((label, k) => {
    const row = element('div');
    row.dataset.label = k + 1;
    const radio = Object.assign(element('input'), { type: 'radio', name: 'label', id: `label-${k + 1}`, checked: !k });
    radio.addEventListener('change', () => choose(k + 1));
    const box = Object.assign(element('input'), { type: 'checkbox', value: String(k + 1), checked: true });
    box.setAttribute('aria-label', `Show ${label.name}`);
    box.addEventListener('change', colours);
    const swatch = element('span');
    swatch.className = 'swatch';
    swatch.style.background = `rgb(${label.rgb.join()})`;
    const name = element('label');
    name.append(radio, ' ', swatch, `${numberOf(k)} ${label.name}`);
    row.append(name, box);
    $('labels').append(row);
  });
  for (const key of facts.images) $('image').append(new Option(key, key));
  for (const [key, name] of Object.entries(facts.maps)) $('map').append(new Option(name, key));
  for (const id of sagittal ? ['more', 'rename'] : []) {
    facts.labels.forEach((label, k) => $(id).append(new Option(label.name, k + 1)));
  }
  listStarts();
  $('rater').value = facts.rater || kept('rater');
  $('comment').value = facts.rating ? facts.rating.comment : '';
  $('follow').checked = kept('follow') === 'yes';
  if (facts.readonly) {
    say('The output folder is read-only: nothing can be saved here.');
    for (const id of ['drawing', 'saving', 'rating']) $(id).disabled = true;
  }
  rated();
  enable();
}

let typed = '';
let typedAt = 0;
function type(digit) {
  typed = Date.now() - typedAt < TYPING_MS ? typed + digit : digit;
  typedAt = Date.now();
  choose(facts.labels.findIndex((_, k) => numberOf(k) === Number(typed)) + 1);
}

const KEYS = {
  v: () => take('look'), b: () => take('brush'), e: () => take('eraser'), f: () => take('fill'), g: () => take('grow'),
  z: undo,
  i: interpolate,
  l: () => { $('lock').checked = !$('lock').checked; },
  s: otherSide,
  t: () => choose(Number($('under').dataset.label)),
  arrowup: () => scroll(1),
  arrowdown: () => scroll(-1),
  '[': () => { $('size').stepDown(); take(desk.tool); },
  ']': () => { $('size').stepUp(); take(desk.tool); },
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

function view(number) {
  nv.setSliceType(number);
  blend();
  press('[data-view]', (button) => Number(button.dataset.view) === number);
}

async function startFrom() {
  const key = $('start').value;
  if (desk.dirty && !window.confirm('Leave what you drew and start from this map?')) {
    $('start').value = desk.start.key;
    return;
  }
  try {
    await load(key);
    desk.dirty = key !== facts.own;
    enable();
  } catch (error) {
    say(error.message);
  }
}

function fullestSlice() {
  const counts = new Array(slices).fill(0);
  desk.before.forEach((label, k) => { if (label) counts[sliceOf(k)] += 1; });
  const most = Math.max(...counts);
  return most ? counts.indexOf(most) : Math.floor(slices / 2);
}

function wire() {
  const on = (id, kind, action) => $(id).addEventListener(kind, action);
  for (const button of document.querySelectorAll('[data-view]')) {
    button.addEventListener('click', () => view(Number(button.dataset.view)));
  }
  for (const button of document.querySelectorAll('[data-tool]')) {
    button.addEventListener('click', () => take(button.dataset.tool));
  }
  for (const button of document.querySelectorAll('.rate')) {
    button.addEventListener('click', () => rate(button.dataset.rating));
  }
  const failed = (error) => say(error.message);
  on('image', 'change', () => show($('image').value).catch(failed));
  on('map', 'change', () => overlay().catch(failed));
  for (const id of ['opacity', 'map-opacity']) on(id, 'input', blend);
  for (const id of ['window', 'level']) on(id, 'input', windowing);
  for (const id of ['size', 'tolerance']) on(id, 'input', () => take(desk.tool));
  for (const [id, shown] of [['all', true], ['none', false]]) {
    on(id, 'click', () => {
      for (const box of $('labels').querySelectorAll('[type=checkbox]')) box.checked = shown;
      colours();
    });
  }
  if (sagittal) {
    on('more', 'change', () => { choose(Number($('more').value)); $('more').value = ''; });
    on('rename', 'change', () => { rename(Number($('rename').value)); $('rename').value = ''; });
  }
  on('undo', 'click', undo);
  on('interpolate', 'click', interpolate);
  on('save', 'click', save);
  on('withdraw', 'click', withdraw);
  on('measure', 'click', measure);
  on('next', 'click', next);
  on('passed', 'change', () => { desk.dirty = true; enable(); });
  on('follow', 'change', () => keep('follow', $('follow').checked ? 'yes' : 'no'));
  on('rater', 'change', () => {
    keep('rater', rater());
    if (!desk.dirty) location.search = new URLSearchParams({ rater: rater() });
    else desk.revision = '';
  });
  on('start', 'change', startFrom);
  window.addEventListener('beforeunload', (event) => { if (desk.dirty) event.preventDefault(); });
}

async function begin() {
  await attach();
  nv.setSliceType(nv.sliceTypeMultiplanar);
  colours();
  await show(facts.images[0]);
  await load(facts.begin);
  goTo(fullestSlice());
  choose(sagittal ? Math.min(...presentLabels(), facts.labels.length) : 1);
  wire();
  progress(facts.measuring);
  document.documentElement.dataset.ready = 'yes';
}

fill();
try {
  await begin();
} catch (error) {
  say(`The scan cannot be shown: ${error.message} The editor needs a browser with WebGL 2.`);
}
// For tests, and for a console.
window.editor = { nv, facts, desk, load, choose, take, rename };
