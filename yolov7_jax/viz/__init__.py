"""All that draws: boxes, sheets of images, assignments, curves, figures of labels and of evaluations, report pages."""
