// Mixtures by hand: a slider a domain that keeps the shares' sum at 1, and what the fitted law
// says of them. Its closed forms are evaluated here; without scripts the tables say the rest.
"use strict";
(() => {
  // Σ t_j r_j^a, a share of 0 counting nothing.
  const sum = (slopes, shares, a) =>
    slopes.reduce((all, slope, i) => all + (shares[i] > 0 ? slope * Math.pow(shares[i], a) : 0), 0);

  // What a law leaves over: a Gaussian process on powers of the shares, Matérn 5/2.
  const matern = (squared) => {
    const distance = Math.sqrt(5 * squared);
    return (1 + distance + distance * distance / 3) * Math.exp(-distance);
  };
  const leftOver = ({ metric, h, places, parts }, shares) => {
    const place = metric.map((m, i) => (shares[i] > 0 ? m * Math.pow(shares[i], h) : 0));
    const away = places.map((known) => known.reduce((all, k, i) => all + (k - place[i]) ** 2, 0));
    return parts.reduce((all, { length, places: own, pulls }) => own.reduce((near, number, i) =>
      near + pulls[i] * matern(away[number] / (length * length)), all), 0);
  };

  // What a law with these coefficients predicts of the shares drawn.
  const FORMS = {
    "linear": ({ b, t }, shares) => b + sum(t, shares, 1),
    "log-linear": ({ c, b, t }, shares) => c + Math.exp(b + sum(t, shares, 1)),
    "power-ridge": ({ c, b, t, a }, shares) => c + Math.exp(b + sum(t, shares, a)),
    "power-log-linear": ({ members, residual }, shares) =>
      members.reduce((all, { weight, c, b, alpha, tau_0, tau, a }) =>
        all + weight * (c + Math.exp(b - alpha * Math.log(tau_0 + sum(tau, shares, a)))), 0) +
      (residual ? leftOver(residual, shares) : 0),
  };

  const percent = (share) => (100 * share).toFixed(2);
  const nats = (value) => value.toFixed(4);
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(4);

  // `shares` with `value` in the place `at`; the others keep their ratios, and where they have
  // nothing left those that they had `before`.
  const moved = (shares, before, at, value) => {
    if (shares.length === 1) return [1];
    const kept = Math.min(Math.max(value, 0), 1);
    const rest = (list) => list.reduce((sum, share, i) => (i === at ? sum : sum + share), 0);
    const from = rest(shares) > 0 ? shares : before;
    const others = rest(from);
    const next = shares.map((_, i) => {
      if (i === at) return kept;
      return others > 0 ? (from[i] * (1 - kept)) / others : (1 - kept) / (shares.length - 1);
    });
    const sum = next.reduce((a, b) => a + b, 0);
    return next.map((share) => share / sum);
  };

  class Mixture {
    constructor(node) {
      this.node = node;
      this.data = JSON.parse(node.querySelector("script").textContent);
      this.rows = [...node.querySelectorAll("[data-domain]")];
      this.targets = [...node.querySelectorAll("[data-target]")];
      for (const [at, row] of this.rows.entries()) {
        const [number, range] = row.querySelectorAll("input");
        range.addEventListener("input", () => this.move(at, Number(range.value), range));
        number.addEventListener("input", () => {
          const value = Number(number.value) / 100;
          if (number.value !== "" && Number.isFinite(value)) this.move(at, value, number);
        });
        number.addEventListener("change", () => this.show());
      }
      const select = node.querySelector("select");
      select.addEventListener("change", () => {
        const chosen = this.data.mixtures[select.value];
        if (chosen) this.set(chosen.shares);
      });
      this.select = select;
      this.before = this.data.mixtures[0].shares;
      this.set(this.data.mixtures[0].shares);
      select.value = 0;
      node.classList.add("live");
    }

    // The loss of each target, in nats a token.
    predict(shares) {
      return this.data.laws.map((law) => FORMS[law.form](law, shares));
    }

    mean(losses) {
      return losses.reduce((sum, loss, i) => sum + this.data.weights[i] * loss, 0);
    }

    // Half the sum of differences to the nearest mixture that was run.
    distance(shares) {
      const far = (run) => run.reduce((sum, share, i) => sum + Math.abs(share - shares[i]), 0) / 2;
      return Math.min(...this.data.tried.map(far));
    }

    set(shares) {
      this.shares = [...shares];
      this.remember();
      this.show();
    }

    move(at, value, typed) {
      this.shares = moved(this.shares, this.before, at, value);
      this.remember();
      this.select.value = "";
      this.show(typed);
    }

    // The last share of each domain that was above 0.
    remember() {
      this.before = this.shares.map((share, i) => (share > 0 ? share : this.before[i]));
    }

    // Everything but the field that is being typed into.
    show(typed) {
      const { shares, data } = this;
      for (const [i, row] of this.rows.entries()) {
        const [number, range] = row.querySelectorAll("input");
        if (range !== typed) range.value = shares[i];
        if (number !== typed) number.value = percent(shares[i]);
        range.setAttribute("aria-valuetext", `${percent(shares[i])} %`);
        const epochs = row.querySelector(".epochs");
        if (epochs && data.epochs[i] !== null) epochs.textContent = (data.epochs[i] * shares[i]).toFixed(2);
        row.classList.toggle("beyond", shares[i] > data.most[i] || shares[i] < data.least[i]);
      }
      const losses = this.predict(shares);
      const first = data.mixtures[0].losses;
      for (const [i, row] of this.targets.entries()) {
        row.cells[2].textContent = nats(losses[i]);
        row.cells[3].textContent = signed(losses[i] - first[i]);
      }
      const mean = this.mean(losses);
      this.node.querySelector("output").textContent = `${nats(mean)} nats a token, ` +
        `${signed(mean - data.mixtures[0].mean)} to the ${data.mixtures[0].name}`;
      const far = this.node.querySelector(".far");
      if (data.tried.length) far.textContent = `${percent(this.distance(shares))} %`;
    }
  }

  for (const node of document.querySelectorAll(".mixture")) node.mixture = new Mixture(node);
})();
