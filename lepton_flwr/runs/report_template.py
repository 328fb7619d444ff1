"""The page of a run, for jinja2; in Python because a Flower app bundle carries no HTML."""

# ruff: noqa: E501

REPORT = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ scenario }}: a federated run</title>
<style>
:root { color-scheme: light; --ink: #1f2933; --muted: #5b6873; --line: #dfe4e8; --blue: #0072B2; --warn: #8a3d00; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2.5rem 1.5rem 4rem; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; }
.kicker { color: var(--muted); margin: 0 0 .3rem; }
.status { display: inline-block; margin-left: .5rem; padding: 0 .6rem; border-radius: 1rem; background: #e3f1fa;
  color: #00517f; font-size: .85rem; }
.status.stopped { background: #fdeadd; color: var(--warn); }
.story { max-width: 46rem; margin: 1rem 0 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr)); gap: .7rem; margin: 1.8rem 0 0; }
.tile { border: 1px solid var(--line); border-radius: .6rem; padding: .7rem .9rem; }
.tile dt { color: var(--muted); font-size: .85rem; }
.tile dd { margin: 0; }
.tile .value { font-size: 1.55rem; font-weight: 650; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile .note { color: var(--muted); font-size: .8rem; }
.guarantee { border-left: 4px solid var(--blue); margin: 0; padding: .1rem 0 .1rem 2rem; max-width: 50rem; }
.guarantee li { margin: .35rem 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1.2rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: .6rem; padding: .6rem; }
figure img { display: block; width: 100%; height: auto; }
figcaption { color: var(--muted); font-size: .85rem; padding: .3rem .4rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--muted); font-weight: 500; }
tr.skipped td { background: #fdf4ee; }
tr.skipped td.reason { color: var(--warn); text-align: left; white-space: normal; border-bottom-width: 2px; }
pre { background: #f5f7f9; border-radius: .6rem; padding: 1rem; overflow-x: auto; font-size: .85rem; line-height: 1.45; }
@media print { .tile, figure, tr { break-inside: avoid; } }
</style>
</head>
<body>
<header>
<p class="kicker">Federated run <b>{{ scenario }}</b><span class="status{{ '' if status == 'finished' else ' stopped' }}">{{ status }}</span></p>
<h1>{{ title }}</h1>
<p class="story">{{ story }}</p>
</header>
<dl class="tiles">
{% for label, value, note in tiles %}
<div class="tile"><dt>{{ label }}</dt><dd class="value">{{ value }}</dd><dd class="note">{{ note }}</dd></div>
{% endfor %}
</dl>
<h2>What is promised</h2>
{% if guarantee %}
<ul class="guarantee">
{% for sentence in guarantee %}
<li>{{ sentence }}</li>
{% endfor %}
</ul>
{% else %}
<p>Nothing was stated.</p>
{% endif %}
{% if images %}
<h2>The run in pictures</h2>
<div class="plots">
{% for name, caption, data in images %}
<figure id="{{ name }}"><img src="data:image/png;base64,{{ data }}" alt="{{ caption }}"><figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
</div>
{% endif %}
<h2>Rounds</h2>
{% if rounds %}
<div class="scroll">
<table>
<thead><tr><th scope="col">Round</th><th scope="col">AUC</th><th scope="col">Accuracy</th><th scope="col">Loss</th><th scope="col">Epsilon, record</th><th scope="col">Epsilon, client</th><th scope="col">Survivors</th><th scope="col">Lost</th><th scope="col">Sent</th><th scope="col">Received</th><th scope="col">Time</th></tr></thead>
<tbody>
{% for row in rounds %}
<tr{% if row.skipped %} class="skipped"{% endif %}>{% for cell in row.cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% if row.skipped %}
<tr class="skipped"><td></td><td class="reason" colspan="{{ row.cells | length - 1 }}">Skipped: {{ row.reason }}</td></tr>
{% endif %}
{% endfor %}
</tbody>
</table>
</div>
{% else %}
<p>No round was finished.</p>
{% endif %}
<h2>Failures</h2>
{% if failures %}
<div class="scroll">
<table id="lost">
<thead><tr><th scope="col">Class</th><th scope="col">In metrics.csv</th><th scope="col">Clients lost</th><th scope="col">Last in round</th></tr></thead>
<tbody>
{% for words, column, count, last in failures %}
<tr><td>{{ words }}</td><td><code>failed_{{ column }}</code></td><td>{{ count }}</td><td>{{ last }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% else %}
<p>No secure sum lost a client.</p>
{% endif %}
<h2>Files of this run</h2>
<ul>
{% for name, meaning in files.items() %}
<li><a href="{{ name }}">{{ name }}</a>: {{ meaning | safe }}</li>
{% endfor %}
</ul>
<h2>Configuration</h2>
<p>Saved as <code>config.toml</code> beside this page; <code>lepton simulate --config config.toml</code> repeats the run, <code>lepton simulate --resume</code> or <code>lepton server resume</code> with the run's folder goes on with it if it was ended.</p>
<pre>{{ config }}</pre>
</body>
</html>
"""
