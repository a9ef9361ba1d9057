"""Authors: from a category sentence to draft environments and tasks."""
