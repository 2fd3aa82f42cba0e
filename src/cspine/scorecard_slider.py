"""The part of report.html that answers while a threshold is moved: sensitivity, specificity, PPV and NPV, counts."""

import json

from cspine.anatomy import LEVELS, OVERALL, TARGETS
from cspine.ensembling import Ensemble
from cspine.thresholds import best_thresholds, usual_rules

WORDS = {OVERALL: "patient"}
MARKUP = """<div class="panel" id="operating">
<p><label>Target <select id="target">@TARGETS@</select></label>
<label>Go to the best by <select id="rule"><option value="">choose</option>@RULES@</select></label>
<label>Prevalence <input id="prevalence" type="number" min="0" max="1" step="any" value="@PREVALENCE@"></label>
<button id="here" type="button">as in these data</button></p>
<p class="slide"><label for="threshold">Threshold</label>
<input id="threshold" type="range" min="0" max="1" step="any"> <output id="at"></output></p>
<div class="figures">
<div><b id="sensitivity"></b><span>sensitivity</span></div><div><b id="specificity"></b><span>specificity</span></div>
<div><b id="ppv"></b><span>PPV</span></div><div><b id="npv"></b><span>NPV</span></div>
<div><b id="f1"></b><span>F1</span></div><div><b id="accuracy"></b><span>accuracy</span></div>
</div>
<p class="note" id="counts"></p>
</div>
<script type="application/json" id="data">@DATA@</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const element = (name) => document.getElementById(name);
const told = (value) => (Number.isFinite(value) ? value.toFixed(3) : "\\u2013");

function show() {
  const target = element("target").value, cut = Number(element("threshold").value);
  const scores = data.scores[target], truth = data.truth[target];
  let tp = 0, fp = 0, fn = 0, tn = 0;
  for (let i = 0; i < scores.length; i++) {
    if (scores[i] >= cut) { if (truth[i] === "1") tp++; else fp++; }
    else if (truth[i] === "1") fn++; else tn++;
  }
  const sensitivity = tp / (tp + fn), specificity = tn / (tn + fp), q = Number(element("prevalence").value);
  const hit = sensitivity * q, alarm = (1 - specificity) * (1 - q);
  const clear = specificity * (1 - q), missed = (1 - sensitivity) * q;
  const values = { sensitivity, specificity, ppv: hit / (hit + alarm), npv: clear / (clear + missed),
    f1: 2 * tp / (2 * tp + fp + fn), accuracy: (tp + tn) / scores.length };
  for (const [name, value] of Object.entries(values)) element(name).textContent = told(value);
  element("at").textContent = cut.toFixed(3);
  element("counts").textContent = `Of ${tp + fn} fractured ${tp} found, ${fn} missed; of ${fp + tn} others ` +
    `${tn} left alone, ${fp} called fractured.`;
}

function jump() {
  const rule = element("rule").value;
  if (rule) element("threshold").value = data.cuts[rule][element("target").value];
  show();
}

function here() {
  const truth = data.truth[element("target").value];
  element("prevalence").value = ((truth.split("1").length - 1) / truth.length).toFixed(6);
  show();
}

element("rule").value = data.rule;
element("target").addEventListener("change", jump);
element("rule").addEventListener("change", jump);
element("threshold").addEventListener("input", () => { element("rule").value = ""; show(); });
element("prevalence").addEventListener("input", show);
element("here").addEventListener("click", here);
jump();
</script>"""


def slider_html(ensemble: Ensemble) -> str:
    """Controls, nested predictions and labels as JSON, and the script that counts them. Names come from fixed lists."""
    labels, nested, rules = ensemble.data.labels, ensemble.blended.nested, usual_rules(ensemble.options.rule)
    cuts = {rule: best_thresholds(labels, nested, rule).tolist() for rule in rules}
    data = {
        "scores": {target: nested[:, place].round(6).tolist() for place, target in enumerate(TARGETS)},
        "truth": {target: "".join(map(str, labels[:, place])) for place, target in enumerate(TARGETS)},
        "cuts": {rule: dict(zip(TARGETS, values, strict=True)) for rule, values in cuts.items()},
        "rule": ensemble.options.rule,
    }
    targets = "".join(f'<option value="{name}">{WORDS.get(name, name)}</option>' for name in (OVERALL, *LEVELS))
    options = "".join(f'<option value="{rule}">{rule}</option>' for rule in rules)
    filled = MARKUP.replace("@TARGETS@", targets).replace("@RULES@", options)
    filled = filled.replace("@PREVALENCE@", f"{ensemble.options.prevalence:g}")
    return filled.replace("@DATA@", json.dumps(data, separators=(",", ":")))
