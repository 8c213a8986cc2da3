"""The pages and an editor of label maps as a local web application."""
