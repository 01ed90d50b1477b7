// A link /sign-in#token=... signs in by itself: what stands behind # never leaves the browser, so it is in no log.
function signIn() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  document.getElementById("token").value = token;
  document.getElementById("sign-in").requestSubmit();
}

addEventListener("hashchange", signIn);
signIn();
