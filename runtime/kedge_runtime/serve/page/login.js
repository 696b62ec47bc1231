"use strict";

document.getElementById("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = document.getElementById("token").value.trim();
  const answer = await fetch("login", {method: "POST", body: token}).catch(() => null);
  if (answer && answer.ok) location.replace("./");
  else document.getElementById("error").textContent =
    answer ? (await answer.json()).error : "No connection";
});
