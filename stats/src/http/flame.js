'use strict';
// Draws profiles as flame graphs: one box for each function, as wide as what it and everything it called stand for, callers above callees. Asks
// for a profile when somebody wants to see it, and keeps at most one earlier one of each kind to compare with.
const LOOKS = [
  ['In use', [['heap', 'inuse_space', 'bytes in use'], ['heap', 'inuse_objects', 'blocks in use']]],
  ['Since the start', [['heap', 'alloc_space', 'bytes allocated'], ['heap', 'alloc_objects', 'blocks allocated']]],
  ['When it had most', [['peak', 'inuse_space', 'bytes at the peak'], ['peak', 'inuse_objects', 'blocks at the peak']]],
  ['Lifetimes', [['lifetimes', 'temporary_objects', 'blocks that lived for less than 1 ms'], ['lifetimes', 'ended_objects', 'blocks that ended'], ['lifetimes', 'ended_space', 'bytes that ended'], ['lifetimes', 'lifetime', 'time lived, of blocks that ended']]],
  ['Fragmentation', [['fragmentation', 'pinned_space', 'free bytes that cannot go back']]],
  ['Held up by the allocator', [['contention', 'delay', 'time held up'], ['contention', 'contentions', 'times held up']]],
];
const FLAME_PATIENCE_MS = 60000, NARROWEST_PX = 1.5, LETTERS_PX = 26;
const flame = { docs: new Map(), marks: new Map(), look: LOOKS[0][1][0], root: null, focus: null, active: null, boxes: [], asking: false, wanted: '' };
const amount = { bytes, count, nanoseconds: n => n < 0 ? '−' + nanos(Math.round(-n)) : nanos(Math.round(n)) };

// ── names ──
/** The crate that a function is of: the first word of its path. */
function crateOf(name) {
  const path = name.replace(/^[<&*([\s]+|^(?:<)?(?:dyn |mut |const |impl )+/g, '');
  const found = /^([A-Za-z_][\w.-]*)::/.exec(path.replace(/^(?:dyn |mut |const )+/, ''));
  return found ? found[1] : '';
}
const LIBRARY = new Set(['std', 'core', 'alloc', '__rustc', 'freestone', 'hashbrown', 'test']);
const START = /^(_start|main|start_thread|__?clone3?|__libc_start.*|__GI_.*|_?_?rust_.*|__rdl_.*|__rg_.*|ld-linux.*|libc\.so.*|\[vdso\].*)$/;
const isLibrary = name => LIBRARY.has(crateOf(name)) || START.test(name);
/** A name for little room: without parameters of types, and of the path only the end. */
function brief(name) {
  let depth = 0, bare = '';
  const plain = name.replace(/^<(.+?) as .+?>::/, '$1::').replace(/^<(.+)>::(\w+)$/, '$1::$2').replace(/::h[0-9a-f]{16}$/, '').replaceAll('->', '→');
  for (const letter of plain) {
    if (letter === '<') depth++;
    if (!depth) bare += letter;
    if (letter === '>') depth = Math.max(0, depth - 1);
  }
  const parts = bare.replaceAll(/::+/g, '::').split('::').filter(part => part && part !== '{{closure}}' && part !== '{closure#0}');
  const closure = /\{\{closure\}\}$|\{closure#\d+\}$/.test(plain) ? ' {…}' : '';
  return (parts.slice(-2).join('::') || name) + closure;
}
/** A number below `limit` that is the same for the same text and another for most others: colours for crates, shades for functions. */
function spread(text, limit) {
  let sum = 7;
  for (const letter of text) sum = (sum * 31 + letter.charCodeAt(0)) % 99991;
  return sum * .61803398875 % 1 * limit;
}

// ── trees ──
/** The tree of one document, or of two to compare. Folded functions count as part of whoever called them. */
function grow(now, then, column, folds) {
  const make = (name, parent) => ({ name, parent, depth: parent ? parent.depth + 1 : 0, kids: new Map(), now: 0, then: 0, variance: 0, width: 0, own: 0, ownThen: 0 });
  const root = make('all', null);
  const add = (doc, key) => {
    const at = doc.columns.findIndex(known => known.name === column), values = doc.values[at], errors = doc.errors[at], places = [root];
    const folded = doc.names.map(name => folds && isLibrary(name));
    root[key] = values[0];
    if (key === 'now') root.variance = errors[0] ** 2;
    for (let i = 1; i < values.length; i++) {
      const above = places[doc.parents[i]];
      if (folded[doc.name[i]]) { places[i] = above; continue; }
      const name = doc.names[doc.name[i]];
      let node = above.kids.get(name);
      if (!node) above.kids.set(name, node = make(name, above));
      places[i] = node;
      node[key] += values[i];
      if (key === 'now') node.variance += errors[i] ** 2;
    }
  };
  add(now, 'now');
  if (then) add(then, 'then');
  const measure = node => {
    node.own = node.now; node.ownThen = node.then;
    let below = 0;
    for (const kid of node.kids.values()) { measure(kid); node.own -= kid.now; node.ownThen -= kid.then; below += kid.width; }
    // As wide as the larger of both, so that what is gone is still seen.
    node.width = below + Math.max(0, node.own, node.ownThen);
    node.sorted = [...node.kids.values()].sort((a, b) => b.width - a.width || (a.name < b.name ? -1 : 1));
  };
  measure(root);
  return root;
}
const flameUnit = () => amount[flame.docs.get(flame.look[0])?.columns.find(column => column.name === flame.look[1])?.unit] || count;
const signedAmount = n => (n > 0 ? '+' : '') + flameUnit()(n);
/** The earlier tree, if it is to be compared with. */
const earlier = () => $('flame-compare').checked ? flame.marks.get(flame.look[0]) : undefined;
function tell(node) {
  const format = flameUnit(), whole = flame.root.now || 1, error = Math.sqrt(node.variance), then = earlier();
  const parts = [`${format(node.now)}${error ? ` ± ${format(error)}` : ''}`, percent(node.now / whole) + ' of all'];
  if (then) parts.splice(1, 0, `${signedAmount(node.now - node.then)} since ${clock(then.taken_unix_ms)}`);
  if (node.own > 0 && node.kids.size) parts.push(`${format(node.own)} its own`);
  return parts.filter(Boolean).join(' · ');
}

// ── drawing ──
function drawFlame() {
  const box = $('flame'), doc = flame.docs.get(flame.look[0]);
  if (!doc) return;
  const then = earlier(), same = flame.focus ? pathOf(flame.focus) : [], old = flame.active ? pathOf(flame.active) : [];
  flame.root = grow(doc, then, flame.look[1], $('flame-fold').checked);
  flame.focus = walk(same); flame.active = walk(old);
  drawBoxes();
  fillFunctions();
  const column = doc.columns.find(column => column.name === flame.look[1]), format = flameUnit(), error = Math.sqrt(flame.root.variance);
  const parts = [`${format(flame.root.now)}${error ? ` ± ${format(error)}` : ''} from ${count(doc.samples)} ${doc.profile === 'contention' ? 'stalls' : 'samples'}`];
  if (column.exact != null && doc.samples) parts.push(`exactly ${format(column.exact)}`);
  if (then) parts.push(`${signedAmount(flame.root.now - flame.root.then)} since ${clock(then.taken_unix_ms)}`);
  if (doc.untracked && /^inuse/.test(column.name)) parts.push(`without ${count(doc.untracked)} samples that could not be followed`);
  parts.push(`at ${clock(doc.taken_unix_ms)}`);
  say($('flame-note'), parts.join(' · '));
  $('flame-none').hidden = flame.root.width > 0;
  box.hidden = !(flame.root.width > 0);
  say($('flame-none'), doc.interval_bytes ? `Nothing yet. Of what is allocated, one in ${bytes(doc.interval_bytes)} is looked at.` : 'Sampling is off. FREESTONE=sample_interval:512KiB, or control::set_sample_interval, turns it on.');
  $('flame-legend').hidden = !then;
  box.setAttribute('aria-label', `Call sites, ${flame.look[2]}`);
}
const pathOf = node => { const path = []; for (; node.parent; node = node.parent) path.unshift(node.name); return path; };
const walk = path => path.reduce((node, name) => node.kids.get(name) || node, flame.root);
function drawBoxes() {
  const box = $('flame'), room = box.clientWidth || 600, query = $('flame-search').value.trim().toLowerCase(), then = earlier();
  const row = parseFloat(getComputedStyle(box).getPropertyValue('--row')) || 20;
  flame.boxes = [];
  const made = [];
  let deepest = 0;
  const put = (node, left, width) => {
    const matches = query && node.name.toLowerCase().includes(query), library = isLibrary(node.name) || !node.parent;
    const change = then ? (node.now - node.then) / (node.width || 1) : 0;
    const wide = width / 100 * room;
    const text = then && wide > 120 && node.now !== node.then ? `${brief(node.name)}  ${signedAmount(node.now - node.then)}` : brief(node.name);
    const item = element('div', { className: 'box' + (node.depth < flame.focus.depth ? ' above' : '') + (matches ? ' match' : query ? ' dim' : '') + (then ? change > 0 ? ' grown' : change < 0 ? ' shrunk' : ' same' : library ? ' library' : ''), id: 'flame-' + flame.boxes.length, role: 'treeitem', 'aria-level': node.depth + 1, 'aria-label': `${node.name}, ${tell(node)}`, 'aria-selected': node === flame.active }, wide >= LETTERS_PX ? text : '');
    item.style.left = left + '%'; item.style.width = `max(1px, calc(${width}% - 1px))`; item.style.top = node.depth * row + 'px';
    if (then) item.style.setProperty('--k', Math.min(1, Math.abs(change)).toFixed(3));
    else if (!library) {
      item.style.setProperty('--h', spread(crateOf(node.name) || node.name, 360).toFixed(0));
      item.style.setProperty('--l', (spread(node.name, .05) - .025).toFixed(3));
    }
    node.item = item;
    flame.boxes.push(node);
    made.push(item);
    deepest = Math.max(deepest, node.depth);
  };
  for (const node of flame.boxes) node.item = null;
  const above = [];
  for (let node = flame.focus.parent; node; node = node.parent) above.unshift(node);
  for (const node of above) put(node, 0, 100);
  const place = (node, left, width) => {
    put(node, left, width);
    for (const kid of node.sorted) {
      const share = width * kid.width / (node.width || 1);
      // The rest is smaller still.
      if (share / 100 * room < NARROWEST_PX) break;
      place(kid, left, share);
      left += share;
    }
  };
  place(flame.focus, 0, 100);
  box.replaceChildren(element('div', { className: 'boxes', role: 'presentation' }, ...made));
  box.firstChild.style.height = (deepest + 1) * row + 'px';
  $('flame-whole').disabled = flame.focus === flame.root;
  choose(flame.active && flame.active.item ? flame.active : flame.focus, false);
  if (query) {
    // What is below a match is part of it.
    let sum = 0, some = 0;
    const find = node => { if (node.parent && node.name.toLowerCase().includes(query)) { sum += node.now; some++; } else node.sorted.forEach(find); };
    find(flame.root);
    say($('flame-found'), some ? `${flameUnit()(sum)}, ${percent(sum / (flame.root.now || 1)) || 'nothing'} of all, below ${query}` : 'no function is called that');
  } else say($('flame-found'), '');
}
/** Puts the reader at a box. */
function choose(node, follows = true) {
  if (flame.active && flame.active.item) flame.active.item.setAttribute('aria-selected', false);
  flame.active = node;
  if (!node.item) return;
  node.item.setAttribute('aria-selected', true);
  $('flame').setAttribute('aria-activedescendant', node.item.id);
  if (follows) {
    const box = $('flame'), top = node.item.offsetTop, height = node.item.offsetHeight;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + height > box.scrollTop + box.clientHeight) box.scrollTop = top + height - box.clientHeight;
  }
  detail(node);
}
function detail(node) {
  say($('flame-name'), node.parent ? node.name : 'everything');
  say($('flame-says'), tell(node));
}
function zoom(node) { flame.focus = node; flame.active = node; drawBoxes(); }

// ── the table: the same for who does not want a picture ──
const functions = new Table('functions', [
  { name: 'function', text: true, of: item => item.name, format: name => name },
  { name: 'its own', of: item => item.own, format: n => flameUnit()(n), title: 'what it allocated itself' },
  { name: 'with callees', wide: true, of: item => item.all, format: n => flameUnit()(n), title: 'and what it called allocated' },
  { name: 'share', wide: true, of: item => item.all / (flame.root.now || 1), format: percent, title: 'of everything' },
  { name: 'change', of: item => item.change ?? -Infinity, format: n => n === -Infinity ? '–' : n ? signedAmount(n) : '0', title: 'with callees, since the marked moment' },
], 1, item => item.name);
function fillFunctions() {
  const by = new Map(), then = earlier(), over = new Set();
  const visit = node => {
    // Of a function that calls itself, the outermost call has all of it.
    const outermost = !over.has(node.name);
    if (node.parent) {
      let item = by.get(node.name);
      if (!item) by.set(node.name, item = { name: node.name, own: 0, all: 0, change: then ? 0 : undefined });
      item.own += node.own;
      if (outermost) { item.all += node.now; if (then) item.change += node.now - node.then; over.add(node.name); }
    }
    node.sorted.forEach(visit);
    if (outermost) over.delete(node.name);
  };
  visit(flame.root);
  functions.table.classList.toggle('alone', !then);
  functions.fill([...by.values()].filter(item => item.all || item.change));
  for (const row of functions.body.children) row.firstChild.title = row.firstChild.textContent;
}

// ── asking ──
async function look(profile) {
  const patience = new AbortController(), alarm = setTimeout(() => patience.abort(), FLAME_PATIENCE_MS);
  try {
    const answer = await fetch('flame?profile=' + profile, { cache: 'no-store', signal: patience.signal });
    if (!answer.ok) throw new Error(answer.status === 503 ? 'too many ask at the same time' : `the server says ${answer.status}`);
    const doc = await answer.json();
    if (doc.version !== VERSION) throw new Error('the program speaks another version: load the page again');
    return doc;
  } catch (error) {
    throw new Error(error instanceof TypeError || error.name === 'AbortError' ? 'no answer' : error.message);
  } finally { clearTimeout(alarm); }
}
/** Asks for the profile that is chosen, and does something with it. Of many wishes meanwhile the last one counts. */
async function lookAgain(then) {
  const profile = flame.look[0];
  flame.wanted = profile;
  if (flame.asking) return;
  flame.asking = true;
  $('flame-card').setAttribute('aria-busy', true);
  $('flame-again').disabled = $('flame-mark').disabled = true;
  try {
    const doc = await look(profile);
    flame.docs.set(profile, doc);
    if (then) then(doc);
    showMark();
    drawFlame();
    $('flame-card').dataset.taken = doc.taken_unix_ms;
  } catch (error) { say($('flame-note'), `${error.message}; look again later`); }
  flame.asking = false;
  $('flame-card').removeAttribute('aria-busy');
  $('flame-again').disabled = $('flame-mark').disabled = false;
  if (flame.wanted !== profile) lookAgain();
}
function showMark() {
  const mark = flame.marks.get(flame.look[0]);
  $('flame-compare').parentElement.hidden = !mark;
  if (mark) say($('flame-compare').nextSibling, `compare with ${clock(mark.taken_unix_ms)}`);
}
for (const [group, looks] of LOOKS) $('flame-look').append(element('optgroup', { label: group }, ...looks.map(chosen => element('option', { value: chosen.slice(0, 2).join('/') }, chosen[2]))));
$('flame-look').addEventListener('change', event => {
  flame.look = LOOKS.flatMap(group => group[1]).find(chosen => chosen.slice(0, 2).join('/') === event.target.value);
  showMark();
  if (flame.docs.has(flame.look[0])) drawFlame(); else lookAgain();
});
$('flame-again').addEventListener('click', () => lookAgain());
$('flame-mark').addEventListener('click', () => lookAgain(doc => { flame.marks.set(doc.profile, doc); $('flame-compare').checked = true; }));
$('flame-compare').addEventListener('change', drawFlame);
$('flame-fold').addEventListener('change', drawFlame);
$('flame-whole').addEventListener('click', () => zoom(flame.root));
$('flame-search').addEventListener('input', () => flame.root && drawBoxes());
$('flame-search').addEventListener('keydown', event => {
  if (event.key !== 'Enter' || !flame.root) return;
  let best = null;
  const query = $('flame-search').value.trim().toLowerCase(), find = node => { if (query && node.parent && node.name.toLowerCase().includes(query)) { if (!best || node.width > best.width) best = node; } else node.sorted.forEach(find); };
  find(flame.root);
  if (best) zoom(best);
});
const boxAt = event => { const item = event.target.closest('.box'); return item && flame.boxes[Number(item.id.slice(6))]; };
$('flame').addEventListener('click', event => { const node = boxAt(event); if (node) zoom(node); });
$('flame').addEventListener('pointermove', event => { const node = boxAt(event); if (node) detail(node); });
$('flame').addEventListener('pointerleave', () => flame.active && detail(flame.active));
$('flame').addEventListener('keydown', event => {
  const node = flame.active;
  if (!node) return;
  const shown = list => list.find(other => other && other.item), siblings = node.parent ? node.parent.sorted : [node], at = siblings.indexOf(node);
  const to = {
    ArrowDown: () => shown(node.sorted), ArrowUp: () => node.parent, ArrowRight: () => shown(siblings.slice(at + 1)), ArrowLeft: () => shown(siblings.slice(0, at).reverse()), Home: () => flame.root,
  }[event.key];
  if (to) { const next = to(); if (next && next.item) choose(next); }
  else if (event.key === 'Enter' || event.key === ' ') zoom(node);
  else if (event.key === 'Escape' || event.key === 'Backspace') zoom(flame.focus.parent || flame.root);
  else return;
  event.preventDefault();
});
new ResizeObserver(() => flame.root && drawBoxes()).observe($('flame-wrap'));
// The first look costs the process as much as any other: nobody need pay who does not come here. Before the first document everything is here.
document.addEventListener('taken', () => new IntersectionObserver((entries, observer) => {
  if (entries.some(entry => entry.isIntersecting)) { observer.disconnect(); lookAgain(); }
}).observe($('flame-card')), { once: true });
