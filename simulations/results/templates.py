"""The pages of results, for jinja2."""

# ruff: noqa: E501

PAGE = """\
# {{ title }} (`{{ name }}`)

{{ description }}

{% if run %}
{{ run.clients }} clients, {{ run.rounds }} rounds of {{ train.local_steps }} {{ "step" if train.local_steps == 1 else "steps" }} on {{ share }} of the rows each; {{ "a linear model" if not hidden else "hidden layers of " ~ hidden ~ " units" }}, {{ run.num_parameters }} parameters; {{ train.optimizer }}, learning rate {{ train.learning_rate }}, gradients of single rows clipped to {{ clip }}.
{% endif %}
{% if central %}
{{ "{:,}".format(central.rows) }} rows of {{ central.features }} numbers each to train on.
{% endif %}

| learnt how | accuracy | AUC | epsilon spent | time | command |
|---|---|---|---|---|---|
{% for row in rows %}
| {{ row.title }} | {{ row.accuracy }} | {{ row.auc }} | {{ row.spent }} | {{ row.seconds }} | {{ row.command }} |
{% endfor %}

{% if picture %}
![AUC over the rounds, and at the end against epsilon]({{ name }}.png)

{% endif %}
- Epsilon is per record, for adding or removing one row of one client, at delta {{ run.delta | default(1e-5) }}
  over the whole run, by the PLD accountant; noise is calibrated to it.
- Secure aggregation is on in every federated run. Of all runs here, {{ skipped }} rounds were skipped and
  {{ saturated }} numbers of updates met the fixed-point bound. A client sent {{ sent }} in all.
- {{ "Seed" if seeds | length == 1 else "Seeds" }} {{ seeds | join(", ") }}. {% if seeds | length == 1 -%}
One seed is one draw of held-out
  rows: the lines of the table compare with each other, and not with another draw. The noise of
  private runs is new in every run, so that these vary beyond the seed; small differences mean nothing.
{%- else -%}
Several seeds: mean (lowest to highest). A seed
  draws the held-out rows too; the noise of private runs is new in every run.
{%- endif %}

- The central network takes as many steps of the same optimizer, on batches of the same share of
  all rows. The trees are scikit-learn's, untuned, on the same features. Both see all rows in one place.
- Time is that of the run, without starting Python and the simulation engine; of training alone for
  the central ones. Two cores that much other work shared made equal runs take one to ten times as
  long: it says little.

`python -m simulations.results measure {{ name }}` measures this page anew once its numbers are
removed from [measured.json](measured.json).
"""

INDEX = """\
# Results

Area under the ROC curve on held-out rows, central and federated, at several epsilon per record
(delta 1e-5, adding or removing one row). Several classes: the mean of one against the rest. Each
page has accuracies, times, commands and a picture. {{ "Seed" if seeds | length == 1 else "Seeds" }} {{ seeds | join(", ") }}.

| scenario | what is learnt |{% for title in titles %} {{ title }} |{% endfor %}

|---|---|{% for title in titles %}---|{% endfor %}

{% for name, title, cells in rows %}
| [{{ name }}]({{ name }}.md) | {{ title }} |{% for cell in cells %} {{ cell }} |{% endfor %}

{% endfor %}

How good the defaults are and how they were chosen: [scenarios](../scenarios.md). The numbers are in
[measured.json](measured.json); `python -m simulations.results measure` measures what is not in it.
"""
