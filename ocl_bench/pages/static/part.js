// Hands the pictures of this file to the report that loads it in a frame. Pages from a disk have no origin to name.
parent.postMessage({ pictures: JSON.parse(document.getElementById("page-data").textContent) }, "*");
