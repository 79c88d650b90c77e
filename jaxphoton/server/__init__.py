"""HTTP in front of one model: the routes of the `moondream` client, of OpenAI's clients, and a page. Extra `serve`."""
