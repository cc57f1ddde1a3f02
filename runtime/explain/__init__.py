"""`finedge explain`: what a bundle's classifier looks at, as pictures over the crop that it saw."""
