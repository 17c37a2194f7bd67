/** Starts the page: one live side, one shell, the view that the address names. */
import { html, render } from 'htm/preact';
import { createLive } from './live.ts';
import { Shell } from './view-shell.ts';

const page = document.getElementById('page');
if (page === null) throw new Error('index.html has no #page');

const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
const live = createLive(`${scheme}//${location.host}/push`);
page.replaceChildren();
render(html`<${Shell} live=${live} />`, page);
