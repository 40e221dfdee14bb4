// Examples with choices: without this script all states stand below each other.

for (const example of document.querySelectorAll(".example")) {
  const states = [...example.querySelectorAll(".state")];
  const apply = () => {
    const chosen = example.querySelector("input:checked").value;
    for (const state of states) state.hidden = state.dataset.state !== chosen;
  };
  for (const state of states) state.querySelector("p").hidden = true;
  example.addEventListener("change", apply);
  apply();
}
