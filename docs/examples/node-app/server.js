const http = require("http");
const greeting = require("greeting");

const server = http.createServer((request, response) => {
  response.end(greeting("world") + "\n");
});

server.listen(process.env.PORT || 8080);
