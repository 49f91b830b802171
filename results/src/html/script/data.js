// The data of a report's page, and how elements are made. No number is made in these scripts: what stands in the data is
// laid out, sorted, filtered and drawn.
'use strict';

const data = JSON.parse(document.getElementById('data').textContent);
const PAGE = 50; // rows of a long table in the document at once
const STATUS = {'not-run': 'not run', 'timed-out': 'timed out', 'out-of-memory': 'out of memory'};
const words = status => STATUS[status] ?? status;
const many = (count, word) => `${count.toLocaleString('en')} ${word}${count === 1 ? '' : 's'}`;
const place = id => document.getElementById(id);

/** An element. Attributes that are functions listen; all texts become text. */
function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === 'function') element.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined && child !== ''));
  return element;
}

/** What a column holds, by row. See column.rs. */
function column({values, places}) {
  if (!places) return row => values[row];
  if (places.width === 0) return () => values[0];
  const text = atob(places.base64);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  const index = new {1: Uint8Array, 2: Uint16Array, 4: Uint32Array}[places.width](bytes.buffer);
  return row => values[index[row]];
}
const columns = all => Object.fromEntries(Object.entries(all).map(([name, one]) => [name, column(one)]));
const record = columns(data.records);
const point = columns(data.points);
const RECORDS = data.rows;

/** The records that a point is made of. */
const recordsOf = (() => {
  let of = null;
  return at => {
    if (!of) {
      of = new Map();
      for (let row = 0; row < RECORDS; row++) {
        const its = record.point(row);
        if (its === null) continue;
        if (of.has(its)) of.get(its).push(row); else of.set(its, [row]);
      }
    }
    return of.get(at) ?? [];
  };
})();
