// Tables that sort by their heads, filter, and have a page of their rows in the document.
'use strict';

/** Missing values come last, however the others are sorted. */
function compare(one, other, direction) {
  if (one === null || other === null) return (one === null) - (other === null);
  return direction * (one < other ? -1 : one > other ? 1 : 0);
}

/**
 * A table of so many rows. A column has a head, `key(row)` to sort by (a text, a number or null), and where something else is
 * shown `text(row)`, or an element, `cell(row)`. Filters beside the one by words are `{label, options, key}`.
 */
function table({name, heads, count, filters = [], filterable = count > 10}) {
  const body = el('tbody');
  const state = {column: null, direction: 1, page: 0, rows: [], texts: []};
  const text = row => state.texts[row] ??= heads.map(head => (head.text ?? head.key)(row) ?? '').join('\n').toLowerCase();
  const input = el('input', {type: 'search', placeholder: 'words that a row has', input: () => refresh(0)});
  const selects = filters.map(({label, options}) =>
    el('select', {'aria-label': label, change: () => refresh(0)}, el('option', {value: ''}, `any ${label}`),
      ...options.map(option => el('option', {value: option}, words(option)))));
  const shown = el('span', {'aria-live': 'polite'});
  const back = el('button', {type: 'button', click: () => turn(-1)}, 'Previous');
  const next = el('button', {type: 'button', click: () => turn(1)}, 'Next');
  const cells = heads.map((head, at) => el('th', {scope: 'col', class: head.number && 'number', title: head.title},
    el('button', {type: 'button', click: () => sort(at)}, head.head)));

  function sort(at) {
    if (state.column !== at) [state.column, state.direction] = [at, 1];
    else if (state.direction === 1) state.direction = -1;
    else state.column = null;
    refresh(0);
  }
  function turn(by) {
    state.page += by;
    draw();
  }
  function refresh(page) {
    const terms = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = filters.map(({key}, at) => [key, selects[at].value]).filter(([, value]) => value !== '');
    state.rows = [];
    for (let row = 0; row < count; row++) {
      if (chosen.every(([key, value]) => key(row) === value) && terms.every(term => text(row).includes(term))) state.rows.push(row);
    }
    if (state.column !== null) {
      const keys = new Map(state.rows.map(row => [row, heads[state.column].key(row) ?? null]));
      state.rows.sort((one, other) => compare(keys.get(one), keys.get(other), state.direction) || one - other);
    }
    cells.forEach((cell, at) => cell.setAttribute('aria-sort',
      at !== state.column ? 'none' : state.direction === 1 ? 'ascending' : 'descending'));
    state.page = page;
    draw();
  }
  function draw() {
    const first = state.page * PAGE, rows = state.rows.slice(first, first + PAGE);
    body.replaceChildren(...rows.map(row => el('tr', null, ...heads.map(head => {
      const content = head.cell ? head.cell(row) : String((head.text ?? head.key)(row) ?? '');
      return head.row ? el('th', {scope: 'row'}, content) : el('td', {class: head.number && 'number'}, content);
    }))));
    const all = state.rows.length, pages = all > PAGE;
    shown.textContent = all === 0 ? 'no row has all of these'
      : pages ? `${(first + 1).toLocaleString('en')} to ${(first + rows.length).toLocaleString('en')} of ${many(all, 'row')}` : many(all, 'row');
    back.disabled = state.page === 0;
    next.disabled = first + PAGE >= all;
    back.hidden = next.hidden = count <= PAGE;
  }
  refresh(0);
  const tools = el('div', {class: 'tools'}, el('label', null, 'Filter', input), ...selects, shown, el('span', {class: 'turn'}, back, next));
  const element = el('div', null, filterable ? tools : null,
    el('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': name},
      el('table', null, el('thead', null, el('tr', null, ...cells)), body)));
  return {element, select: (at, value) => { selects[at].value = value; input.value = ''; refresh(0); }};
}
