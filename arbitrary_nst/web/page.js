() => {
  // Sliders: Enter in their number, and arrow keys, count as the release of the handle does.
  document.addEventListener("change", ({target}) => {
    if (!target.matches("input[type=number]") || target.value === "") return;
    const within = Math.min(Math.max(target.value, target.min), target.max);
    if (within != target.value) {
      target.value = within;
      target.dispatchEvent(new Event("input", {bubbles: true}));
    }
  }, true);
  document.addEventListener("keydown", ({key, target}) => {
    if (key === "Enter" && target.matches("input[type=number]")) {
      target.blur();
      target.focus();
    }
  });
  document.addEventListener("keyup", ({key, target}) => {
    const moves = key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(key);
    if (moves && target.matches("[data-testid=range-input]")) {
      target.dispatchEvent(new PointerEvent("pointerup", {bubbles: true}));
    }
  });

  // Browsers give no type to files of formats that they do not know, and gradio refuses these as photos.
  const types = {avif: "image/avif", heic: "image/heic", heif: "image/heif", hif: "image/heif"};
  const typeOf = file => file.type || types[file.name.split(".").pop().toLowerCase()] || "";
  const lacksType = file => typeOf(file) !== file.type;
  const typed = files => {
    const transfer = new DataTransfer();
    for (const file of files) {
      transfer.items.add(lacksType(file) ? new File([file], file.name, {type: typeOf(file)}) : file);
    }
    return transfer.files;
  };
  document.addEventListener("change", ({target}) => {
    if (target.matches("#photo input[type=file]") && [...target.files].some(lacksType)) {
      target.files = typed(target.files);
    }
  }, true);
  document.addEventListener("drop", event => {
    const input = event.target.closest("#photo")?.querySelector("input[type=file]");
    if (input && [...event.dataTransfer.files].some(lacksType)) {
      event.preventDefault();
      event.stopPropagation();
      event.target.dispatchEvent(new DragEvent("dragleave", {bubbles: true}));
      input.files = typed(event.dataTransfer.files);
      input.dispatchEvent(new Event("change"));
    }
  }, true);

  // Screen readers announce what changes in these; some of them are there only when their tab is open.
  const announce = () => {
    for (const id of ["status", "hint", "losses", "slow-hint", "photo-told", "styles-told", "areas-told"]) {
      document.querySelector(`#${id} .html-container`)?.setAttribute("role", "status");
    }
  };
  announce();
  document.addEventListener("click", () => requestAnimationFrame(announce));

  // On a phone the picture is below the button that makes it.
  document.addEventListener("click", ({target}) => {
    if (target.closest("#paint, #example") && innerWidth <= 640) {
      document.getElementById("ways").scrollIntoView({behavior: "smooth"});
    }
  });

  // A secret by which the server knows this tab again after a reload.
  let desk = sessionStorage.getItem("desk");
  if (!desk) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    desk = Array.from(bytes, byte => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("desk", desk);
  }
  return [desk];
}
