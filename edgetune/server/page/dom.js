// What all modules of the page use.

export const $ = (id) => document.getElementById(id);

export const milliseconds = (ms) => `${ms.toFixed(1)}\u00a0ms`;

export function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
