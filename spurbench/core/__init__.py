"""What everything stands on: errors, files, identities, documents, resources."""
