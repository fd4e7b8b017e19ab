// Selects the first rows of the table once it is loaded, because Spotlight's panel of pictures shows selected rows only.

const N_SELECTED = 12;

import("/static/lib.js")
  .then(({ useDataset }) => {
    const stop = useDataset.subscribe((state) => {
      if (state.loading || !state.length || !state.columns.length) return;
      stop();
      if (!state.selectedIndices.length) state.selectRows([...Array(Math.min(N_SELECTED, state.length)).keys()]);
    });
  })
  .catch(() => {}); // another version of Spotlight: the user selects pictures

export default {};
