// What all parts of the editor share: the facts of the scan, what the reader is doing, the server.
export const $ = (id) => document.getElementById(id);
export const facts = JSON.parse($('data').textContent);
export const base = `../scan/${facts.scan}`;
export const sagittal = facts.plane === 'sagittal';

// What the reader is doing. `before` is the drawing as the last tool left it.
export const desk = {
  chosen: 1,
  tool: 'look',
  dirty: false,
  undos: 0,
  drawn: [], // slices of the scan, the last one drawn on at the end
  start: { key: '', sha256: '' },
  revision: facts.revision,
  before: new Uint8Array(facts.shape[0] * facts.shape[1] * facts.shape[2]),
};

export const say = (text) => { $('message').textContent = text; };
export const rater = () => $('rater').value.trim();
export const keep = (name, value) => { try { localStorage.setItem(`bids_muscle/${name}`, value); } catch { /* not kept */ } };
export const kept = (name) => { try { return localStorage.getItem(`bids_muscle/${name}`) || ''; } catch { return ''; } };

export function element(tag, text) {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  return node;
}

export function press(selector, isPressed) {
  for (const button of document.querySelectorAll(selector)) button.setAttribute('aria-pressed', String(isPressed(button)));
}

export async function ask(address, options) {
  const answer = await fetch(address, options);
  if (answer.ok) return answer;
  const text = await answer.text();
  let content = { message: text };
  try { content = JSON.parse(text); } catch { /* a sentence */ }
  throw Object.assign(new Error(content.message), content);
}

export function enable() {
  $('undo').disabled = !desk.undos;
  const own = facts.starts.find((each) => each.key === facts.own);
  // What was drawn on other images may fit these as it is.
  $('save').disabled = facts.readonly || !(desk.dirty || (own && own.onOthers));
  $('measure').disabled = facts.readonly || desk.dirty;
  $('withdraw').disabled = facts.readonly || !own || own.state === 'withdrawn';
}
