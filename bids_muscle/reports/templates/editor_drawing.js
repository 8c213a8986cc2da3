// The label map, which is the drawing of NiiVue, and what changes it.
import { $, ask, base, desk, enable, facts, press, sagittal, say } from './editor_page.js';
import { nv, sliceOf, slices } from './editor_picture.js';

export async function load(key) {
  const answer = await ask(`${base}/labels/${encodeURIComponent(key)}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  desk.start = { key, sha256: answer.headers.get('X-SHA256') };
  nv.createEmptyDrawing();
  nv.drawBitmap.set(bytes);
  nv.drawClearAllUndoBitmaps();
  desk.before.set(bytes);
  add(true);
  Object.assign(desk, { undos: 0, drawn: [], dirty: false });
  nv.refreshDrawing(true);
  list();
  enable();
}

const add = nv.drawAddUndoBitmap.bind(nv);
// All tools of NiiVue end here, with the drawing as they left it.
nv.drawAddUndoBitmap = (overwrites = true) => {
  const { before } = desk;
  const now = nv.drawBitmap;
  const own = (label) => !label || label === desk.chosen;
  const changed = new Set();
  let reverted = false;
  for (let k = 0; k < now.length; k += 1) {
    if (now[k] !== before[k]) {
      if ($('lock').checked && !(own(before[k]) && own(now[k]))) {
        now[k] = before[k];
        reverted = true;
      } else {
        changed.add(sliceOf(k));
      }
    }
  }
  if (reverted) nv.refreshDrawing(true);
  if (changed.size) done(changed, overwrites);
};

function done(changed, overwrites = true) {
  desk.before.set(nv.drawBitmap);
  add(overwrites);
  desk.undos = Math.min(desk.undos + 1, nv.opts.maxDrawUndoBitmaps - 1);
  desk.drawn = [...desk.drawn.filter((slice) => !changed.has(slice)), ...changed];
  desk.dirty = true;
  if (desk.drawn.length > 1) {
    const [a, b] = desk.drawn.slice(-2);
    $('low').value = Math.min(a, b);
    $('high').value = Math.max(a, b);
  }
  enable();
}

export function undo() {
  if (!desk.undos) return;
  desk.undos -= 1;
  nv.drawUndo();
  desk.before.set(nv.drawBitmap);
  desk.dirty = true;
  list();
  enable();
}

export function interpolate() {
  const [low, high] = [Number($('low').value), Number($('high').value)];
  if (!($('low').value && $('high').value && high - low > 1 && high < slices)) {
    say('Draw on two slices of the scan, or enter two slices, with others between them.');
    return;
  }
  // NiiVue knows one label at a time.
  const now = nv.drawBitmap;
  nv.drawBitmap = now.map((label, k) => (label === desk.chosen && [low, high].includes(sliceOf(k)) ? label : 0));
  nv.interpolateMaskSlices(low, high, {
    useIntensityGuided: false, sliceType: sagittal ? nv.sliceTypeSagittal : nv.sliceTypeAxial,
  });
  const made = nv.drawBitmap;
  nv.drawBitmap = now;
  for (let k = 0; k < now.length; k += 1) {
    const slice = sliceOf(k);
    if (slice > low && slice < high) {
      if (made[k]) now[k] = desk.chosen; else if (now[k] === desk.chosen) now[k] = 0;
    }
  }
  const { drawn } = desk;
  nv.drawAddUndoBitmap();
  desk.drawn = drawn; // by the reader
  $('low').value = low;
  $('high').value = high;
  nv.refreshDrawing(true);
}

// Vertebrae and discs from top to bottom: C1 to L5 are 1 to 24, S1 is 26; those without a name
// are counted from 41, from below. A disc has the number of the vertebra above it, and 100.
const DISC = 100;
const rankOf = (index) => {
  const number = index % DISC;
  if (number > 40) return { named: false, rank: 40 - number };
  return { named: true, rank: number === 26 ? 25 : number };
};
const indexOf = (rank, named, disc) => (named ? (rank === 25 ? 26 : rank) : 40 - rank) + (disc ? DISC : 0);

// Give the chosen structure another name, and the others with it, in order.
export function rename(target) {
  const [from, to] = [desk.chosen, target].map((label) => facts.labels[label - 1]);
  const [old, wanted] = [from, to].map((label) => rankOf(label.index));
  const present = presentLabels();
  const places = new Map(facts.labels.map((label, k) => [label.index, k + 1]));
  const moved = new Map();
  for (const label of present) {
    const { index, name } = facts.labels[label - 1];
    const { named, rank } = rankOf(index);
    if (label === desk.chosen || ($('together').checked && named === old.named)) {
      const shifted = indexOf(rank + wanted.rank - old.rank, wanted.named, index > DISC);
      if (!places.has(shifted)) {
        say(`There would be no name for ${name}. Nothing was renamed.`);
        return;
      }
      moved.set(label, places.get(shifted));
    }
  }
  const taken = [...moved.values()].find((label) => present.has(label) && !moved.has(label));
  if (taken) {
    say(`${facts.labels[taken - 1].name} is there already. Rename the others with it, or erase it first.`);
    return;
  }
  const changed = new Set();
  for (let k = 0; k < nv.drawBitmap.length; k += 1) {
    if (moved.has(nv.drawBitmap[k])) {
      nv.drawBitmap[k] = moved.get(nv.drawBitmap[k]);
      changed.add(sliceOf(k));
    }
  }
  if (!changed.size) return;
  done(changed);
  nv.refreshDrawing(true);
  list();
  choose(target);
}

export const presentLabels = () => {
  const found = new Set(nv.drawBitmap);
  found.delete(0);
  return found;
};

// Of a spine, the list has what is there; the others can be added.
function list() {
  if (!sagittal) return;
  const present = presentLabels();
  const shown = (label) => present.has(label) || label === desk.chosen;
  for (const row of $('labels').children) row.hidden = !shown(Number(row.dataset.label));
  for (const option of $('more').options) option.hidden = option.value !== '' && shown(Number(option.value));
}

export function choose(label) {
  if (!(label >= 1 && label <= facts.labels.length)) return;
  desk.chosen = label;
  $(`label-${label}`).checked = true;
  if (sagittal) {
    const disc = facts.labels[label - 1].index > DISC;
    for (const option of $('rename').options) {
      if (option.value) option.hidden = (facts.labels[option.value - 1].index > DISC) !== disc;
    }
  }
  if (nv.drawBitmap) list();
  take(desk.tool);
}

export function take(name) {
  desk.tool = facts.readonly ? 'look' : name;
  nv.opts.clickToSegment = desk.tool === 'grow';
  nv.opts.clickToSegmentIs2D = true;
  nv.opts.clickToSegmentPercent = Number($('tolerance').value) / 100;
  nv.opts.clickToSegmentAutoIntensity = true;
  nv.opts.penSize = Number($('size').value);
  nv.setPenValue(desk.tool === 'eraser' ? 0 : desk.chosen, desk.tool === 'fill');
  nv.opts.drawingEnabled = desk.tool !== 'look';
  press('[data-tool]', (button) => button.dataset.tool === desk.tool);
}

export function otherSide() {
  const { muscle, side } = facts.labels[desk.chosen - 1];
  choose(facts.labels.findIndex((each) => each.muscle === muscle && each.side !== side) + 1);
}
