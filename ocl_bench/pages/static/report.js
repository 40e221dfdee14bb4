// Start of the report.

const page = pageData();
const explorer = new Explorer(page, document.getElementById("explorer"));
const pairHolder = document.getElementById("pair");
if (pairHolder) showPair(page, pairHolder, explorer);
performance.mark("interactive");
