"use strict";

// What is known of each process, by its pid.
const processes = new Map();
let requests = 0;
let failed = 0;
let heard = 0; // when a process said something last

const element = (id) => document.getElementById(id);

// learn takes what a process says. What it said earlier may come later, on another connection.
function learn(status) {
	const known = processes.get(status.pid) ?? { answered: 0, drains: false };
	const drains = known.drains || status.drains;
	heard = performance.now();
	const p = { ...known, ...status, drains, gone: drains && known.gone, answered: Math.max(known.answered, status.answered), heard };
	processes.set(status.pid, p);
	return p;
}

// isHere: one that says nothing for two seconds, while others do, was killed. What drains
// says nothing to new requests.
function isHere(p) {
	return !p.gone && (p.drains || heard - p.heard < 2000);
}

// newest is the process that has the highest generation of those that are here.
function newest() {
	return [...processes.values()].filter(isHere).reduce((a, b) => (b.generation > (a?.generation ?? 0) ? b : a), undefined);
}

function state(p) {
	if (!isHere(p)) return "gone";
	if (p.drains) return "drains";
	return p.generation < newest().generation ? "stands by" : "serves";
}

function cells(row, texts) {
	row.replaceChildren(...texts.map((text) => {
		const cell = document.createElement("td");
		cell.textContent = text;
		return cell;
	}));
	return row;
}

function show() {
	element("requests").textContent = requests;
	element("failed").textContent = failed;
	element("failed").className = failed > 0 ? "some" : "";
	if (processes.size === 0) return; // the server has filled the page in
	const latest = newest();
	if (latest) {
		element("pid").textContent = element("newest").textContent = latest.pid;
		element("generation").textContent = latest.generation;
	}
	const rows = [...processes.values()].sort((a, b) => b.generation - a.generation).map((p) => {
		const row = cells(document.createElement("tr"), [p.generation, p.pid, state(p), p.started, p.answered]);
		row.className = state(p).split(" ").pop();
		return row;
	});
	element("processes").replaceChildren(...rows);
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// ask makes requests, one after the other.
async function ask() {
	for (;;) {
		try {
			const answer = await fetch("/status", { cache: "no-store" });
			if (!answer.ok) throw new Error(answer.status);
			learn(await answer.json());
		} catch {
			failed++;
		}
		requests++;
		await pause(50);
	}
}

// watch listens to one process, until that ends the stream, and then to the next one.
function watch() {
	const events = new EventSource("/events");
	let last;
	events.onmessage = (event) => {
		const status = JSON.parse(event.data);
		last = learn(status);
		if (status.drains) {
			events.close();
			farewell(last);
			watch();
		}
	};
	events.onerror = () => {
		events.close();
		if (last && state(processes.get(last.pid)) !== "serves") farewell(last);
		setTimeout(watch, 200);
	};
}

// farewell: what drains has gone when it has nothing in flight any more. Slow requests of
// this page are all that can be.
async function farewell(p) {
	await pause(1000);
	while (slow.has(p.pid)) await pause(200);
	processes.get(p.pid).gone = true;
}

// slow has the processes that answer slow requests, with how many they are.
const slow = new Map();

async function sendSlow() {
	const to = newest()?.pid;
	element("slows").hidden = false;
	const row = element("slows").tBodies[0].insertRow(0);
	row.className = "waits";
	cells(row, [to, "waits, for 10 seconds", ""]);
	slow.set(to, (slow.get(to) ?? 0) + 1);
	try {
		const answer = await fetch("/sleep/?duration=10s", { cache: "no-store" });
		const by = (await answer.text()).match(/pid (\d+)/)[1];
		row.className = "answered";
		cells(row, [to, "answered", by]);
	} catch {
		failed++;
		row.className = "lost";
		cells(row, [to, "lost", ""]);
	}
	requests++;
	if (slow.get(to) === 1) slow.delete(to);
	else slow.set(to, slow.get(to) - 1);
}

async function restart(event) {
	event.preventDefault();
	const button = event.submitter ?? event.target.querySelector("button");
	button.disabled = true;
	element("said").textContent = "restarts";
	try {
		const answer = await fetch("/restart", { method: "POST", headers: { Accept: "text/plain" } });
		element("said").textContent = await answer.text();
	} catch (error) {
		element("said").textContent = error.message;
	}
	button.disabled = false;
}

element("restart").addEventListener("submit", restart);
element("slow").addEventListener("click", sendSlow);
element("slow").hidden = false;
ask();
watch();
setInterval(show, 100);
