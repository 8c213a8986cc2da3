// What goes to the server: corrections, measurements and ratings.
import { $, ask, base, desk, element, enable, facts, press, rater, say } from './editor_page.js';
import { nv } from './editor_picture.js';

const POLL_MS = 700;
const STATES = { counts: 'counts', draft: 'draft', withdrawn: 'withdrawn' };

const guarded = (action) => async (...words) => {
  try { await action(...words); } catch (error) { say(error.message); }
};

export function listStarts() {
  const names = { network: "the network's map", published: 'the published map, of a person' };
  $('start').replaceChildren(...facts.starts.map((each) => {
    const whose = each.rater ? `${each.rater}, ${each.savedAt.slice(0, 16).replace('T', ' ')}` : names[each.key];
    const remarks = [STATES[each.state], each.onOthers && 'drawn on other images'].filter(Boolean).join(', ');
    return new Option(remarks ? `${whose} (${remarks})` : whose, each.key);
  }));
  $('start').value = desk.start.key || facts.begin;
}

// What is to start from may have changed: a map was saved, or measured.
async function refresh() {
  const query = new URLSearchParams({ rater: rater() });
  const { starts, own } = await (await ask(`${base}/facts?${query}`)).json();
  Object.assign(facts, { starts, own });
  listStarts();
  enable();
}

export async function save() {
  const query = new URLSearchParams({
    rater: rater(), start: desk.start.key, startSha256: desk.start.sha256, revision: desk.revision,
    imagesSha256: facts.imagesSha256, passed: String($('passed').checked),
  });
  try {
    const answer = await (await ask(`${base}/correction?${query}`, {
      method: 'POST', body: nv.drawBitmap.slice(), headers: { 'Content-Type': 'application/octet-stream' },
    })).json();
    Object.assign(desk, { revision: answer.revision, dirty: false });
    const changed = answer.VoxelsChanged === 'n/a' ? '' : `, ${answer.VoxelsChanged} voxels changed`;
    const then = answer.Passed ? '"Measure again" takes it.' : 'It is a draft and is not measured.';
    $('saved').textContent = `Saved at ${answer.SavedAt.slice(11, 16)} UTC${changed}. ${then}`;
    say('');
    await refresh();
  } catch (error) {
    if (error.revision !== undefined) desk.revision = error.revision;
    $('saved').textContent = '';
    say(error.message);
  }
}

export const withdraw = guarded(async () => {
  await ask(`${base}/withdraw?${new URLSearchParams({ rater: rater() })}`, { method: 'POST' });
  await refresh();
  const counting = facts.starts.find((each) => each.state === 'counts');
  $('saved').textContent = 'Withdrawn; it is kept, and not measured. "Measure again" takes '
    + `${counting ? `the map of ${counting.rater}` : "the network's map, unless one drawn in another program is there"}.`;
});

export const measure = guarded(async () => {
  progress(await (await ask(`${base}/measure`, { method: 'POST' })).json());
});

const poll = guarded(async () => {
  progress(await (await ask(`${base}/measure`)).json());
  if (!$('measures').hidden) await refresh();
});

export function progress(job) {
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
  enable();
  $('measures').hidden = job.state !== 'done';
  if (job.state !== 'done') return;
  if (job.segmentation !== facts.segmentation) {
    facts.segmentation = job.segmentation;
    facts.rating = null;
    rated();
  }
  const table = element('table');
  const head = element('tr');
  head.append(element('th', 'Name'), ...job.measures.map((name) => element('th', name)));
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

export function rated() {
  const given = facts.rating ? facts.rating.rating : '';
  press('.rate', (button) => button.dataset.rating === given);
}

export const rate = guarded(async (rating) => {
  const row = {
    scan: facts.scan, segmentation: facts.segmentation, rating, muscles: (facts.rating || {}).muscles || [],
    comment: $('comment').value.trim(), rater: rater(), rated_at: '',
  };
  await ask('../rating', {
    method: 'POST', body: JSON.stringify(row), headers: { 'Content-Type': 'application/json' },
  });
  facts.rating = row;
  rated();
  say(`Rated ${rating}.`);
  if ($('follow').checked) await next();
});

export const next = guarded(async () => {
  const query = new URLSearchParams({ after: facts.scan, rater: rater() });
  const { scan } = await (await ask(`../next?${query}`)).json();
  if (scan) location.href = `${scan}?${new URLSearchParams({ rater: rater() })}`;
  else say('All other scans are rated.');
});
