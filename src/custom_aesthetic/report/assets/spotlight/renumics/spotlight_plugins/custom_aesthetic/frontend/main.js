// Selects the first rows of the table once it is loaded, because Spotlight's panel of pictures shows selected rows only.

const N_SELECTED = 12;

function selectFirst(state) {
  const isLoaded = !state.loading && state.length > 0 && state.columns.length > 0;
  if (isLoaded && !state.selectedIndices.length) {
    state.selectRows([...Array(Math.min(N_SELECTED, state.length)).keys()]);
  }
  return isLoaded;
}

import("/static/lib.js")
  .then(({ useDataset }) => {
    if (selectFirst(useDataset.getState())) return;
    const stop = useDataset.subscribe((state) => {
      if (state.loading || !state.length || !state.columns.length) return;
      stop(); // before the selection, which is a change of the state too
      selectFirst(state);
    });
  })
  .catch(() => {}); // another version of Spotlight: the user selects pictures

export default {};
